"""The client with which tests ask the servers on this machine."""

import ssl

import httpx

LOCAL = httpx.Client(
    trust_env=False,
    # on loopback nobody needs the machine's certificates, which take longer to read than most answers
    verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    # the servers of one test are not those of the next
    limits=httpx.Limits(max_keepalive_connections=0),
)
