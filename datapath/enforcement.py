"""The policy programs on a pod's interface: policy_out on the ingress of its host side, policy_in on the egress.

They stand only where a policy holds: other pods pay nothing. policy_out comes before from_pod, and chooses the backend
where a packet goes to a frontend; policy_in comes before to_pod: so both see the backend. Works in the network
namespace of the calling thread.
"""

from pyroute2 import IPRoute

from datapath.attach import attach, detach
from datapath.pins import Programs

POLICY = ("policy_out", "policy_in")


def enforce(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """Both programs on the interface; whether anything was written. Raises AttachError."""
    return attach(ifindex, POLICY, programs, netlink=netlink)


def relax(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """Neither program on the interface any more; whether one of the instance was there."""
    return detach(ifindex, programs, POLICY, netlink=netlink)
