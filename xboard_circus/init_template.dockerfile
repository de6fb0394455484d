# Written by `xboard-circus init --docker`. It builds on the image of xboard-circus, which is built once, in its checkout:
#   docker build -t xboard-backend .
# Then here, with what your app needs in requirements.txt:
#   docker build -t backend .
#   docker run -d --name backend --restart unless-stopped -p 8000:8000 -v backend-data:/app/data backend
ARG BASE=xboard-backend
FROM ${BASE}
USER root
RUN python -m ensurepip
COPY requirements.txt ./
RUN python -m pip install --no-cache-dir -r requirements.txt && python -m pip check
COPY . ./
USER 1000:1000
# Other settings of the image: XBOARD_DRAIN, XBOARD_GRACEFUL_TIMEOUT, XBOARD_GIVE_UP_AFTER, LOG_LEVEL. For options that
# have none, copy an ini of your own over /app/circus.ini.
ENV XBOARD_APP={{ app }} XBOARD_WORKERS={{ workers }} XBOARD_LIVE_PATH={{ live_path or "" }} XBOARD_READY_PATH={{ ready_path or "" }}
