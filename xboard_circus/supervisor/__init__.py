"""What runs inside circusd: one Supervisor per arbiter, one ArmedWatcher per watcher that carries our hook.

Everything here runs in circusd's only thread. It never waits (coroutines sleep on the loop, looks at other processes
go to a thread), and nothing that it does raises into Circus: where a part fails, the failure is logged and the
backend runs on without that protection.
"""
