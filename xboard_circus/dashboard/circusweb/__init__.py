"""What ``[circus] httpd = True`` of Circus imports, in the place of circus-web, which installs no more."""
