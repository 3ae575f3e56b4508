"""A network policy as this cluster's own daemons see it: the value is its rules as they were given."""

from meshd.agent.objects import Ref


def policy_name(ref: Ref) -> str:
    """The name below the prefix: `<kind>/<namespace>/<name>`, with "-" for a kind without namespaces."""
    return f"{ref.kind}/{ref.namespace or '-'}/{ref.name}"
