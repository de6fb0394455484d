"""gunicorn with uvicorn's worker class (package uvicorn-worker)."""

import os

wsgi_app = "bench.plain_app:app"
bind = f"127.0.0.1:{os.environ['BENCH_PORT']}"
workers = int(os.environ["BENCH_WORKERS"])
worker_class = "uvicorn_worker.UvicornWorker"
worker_tmp_dir = os.environ["BENCH_FOLDER"]
timeout = 2  # two missed beats of a second each
graceful_timeout = 30
keepalive = 5  # as uvicorn has it by default
control_socket_disable = True  # it lies in the home folder, one for all gunicorns
