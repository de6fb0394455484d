"""Stand in for circus-web, which cannot be installed any more: ``[circus] httpd = True`` of Circus imports this."""
