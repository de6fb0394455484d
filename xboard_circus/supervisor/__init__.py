"""Supervise inside circusd: one Supervisor per arbiter, one ArmedWatcher per watcher with our hook.

Everything here runs in circusd's only thread. It never waits (coroutines sleep on the loop, looks at other processes
run in a thread), and raises nothing into Circus: where a part fails, the failure is logged and the backend runs on
without that protection.
"""
