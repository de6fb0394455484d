// pm2 gives Python processes no port in common, so it keeps uvicorn up, and uvicorn its workers.
module.exports = {
  apps: [{
    name: "web",
    script: "@python",
    interpreter: "none",
    args: "-m uvicorn bench.plain_app:app --host 127.0.0.1 --port @port --workers @workers --no-access-log --timeout-worker-healthcheck 2",
    kill_timeout: 30000,
  }],
};
