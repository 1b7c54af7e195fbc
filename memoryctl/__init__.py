"""The same product on a laptop: the function as a process and an embedded server instead of a cluster."""

import os

# gRPC prepares itself for being used in a forked child, and a child that only becomes another program can die of that:
# a quarter of the children did while a channel was connecting, and none of 19,000 with this. It is read when grpc is
# imported, so it stands here.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
