"""Apps that serve their clients and do not accept what a probe sends by default: each one in its own way."""

from fastapi import FastAPI, Header, HTTPException
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

PATH = "/health/live"


def answering(path: str = PATH) -> FastAPI:
    made = FastAPI()

    @made.get(path)
    def live() -> str:
        return "ok"

    return made


trusted_host = answering()
trusted_host.add_middleware(TrustedHostMiddleware, allowed_hosts=["shop.example.org"])

https_only = answering()
https_only.add_middleware(HTTPSRedirectMiddleware)

mounted = FastAPI()
mounted.mount(PATH, answering("/"))

login = FastAPI()


@login.get(PATH)
def live(x_probe: str = Header("")) -> str:
    if x_probe != "let me in, please":
        raise HTTPException(401)
    return "ok"


no_such_path = FastAPI()
