"""An app that cannot start, and says so with the password of its database in the message."""

raise RuntimeError(
    "connection to postgresql://app:url-hunter2@db/x failed, password=plain-hunter2, "
    "Authorization: Bearer bearer-hunter2"
)
