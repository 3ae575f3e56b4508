"""Network policy by identity, across clusters: what a cluster's policies say, and what that means for each pod.

Pure. A selector is resolved to the identities of all clusters; the result is a table of (direction, peer identity,
protocol and port block) → allow or deny per local identity, which the datapath looks packets up in.
"""
