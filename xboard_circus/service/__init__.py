"""Install the backend as a service of the host: systemd on Linux, launchd on macOS.

`layout` decides names and places, `rendering` fills in the templates, `managers` talk to systemctl and launchctl,
`installing` puts the steps in order; `host.written_files` writes without following links.
"""
