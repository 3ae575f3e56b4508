"""What others have done to the agent's keys, and what has to be done about it."""

import logging
from collections.abc import Mapping

from meshd.agent.etcd.beacon import canary_keys
from meshd.agent.etcd.ledger import Ledger
from meshd.agent.etcd.lookout import Change, Disturbed
from meshd.agent.etcd.ownership import NotOurs, check_ownership
from meshd.agent.etcd.progress import Progress
from meshd.agent.settings import AgentConfig
from wire import keys

logger = logging.getLogger(__name__)


def put_right(
    changes: Mapping[str, Change], ledger: Ledger, progress: Progress, *, config: AgentConfig, lease: int
) -> set[str]:
    """Tells the ledger what stands in etcd; returns what has to be shown again of cluster-config and canaries.

    Raises Disturbed if the numbering or the generation was changed.
    """
    shown = {keys.cluster_config(config.cluster), *canary_keys(config.cluster)}
    for key, change in changes.items():
        if ledger.owns(key):
            is_ours = change.value is None or change.lease == lease
            ledger.found(key, change.value if is_ours else b"")
        elif key.startswith(keys.CLUSTER_CONFIG_PREFIX) and key not in shown:
            _judge_rival(key, change.value, progress, config)
            continue
        elif key not in shown:
            if key.startswith(keys.LOCAL_PREFIX) and key != keys.LEADER:
                raise Disturbed(f"somebody else has changed {key}")
            continue
        progress.foreign += 1
        logger.warning("somebody else has changed a key of ours: putting it right", extra={"key": key})
    return shown & changes.keys()


def _judge_rival(key: str, value: bytes | None, progress: Progress, config: AgentConfig) -> None:
    """Another cluster's config: nothing of ours to put right, but whoever reads here is misled."""
    progress.rival = ""
    if value is None:
        return
    name = key.removeprefix(keys.CLUSTER_CONFIG_PREFIX)
    try:
        check_ownership({name: value}, cluster=config.cluster, cluster_id=config.cluster_id)
    except NotOurs as error:
        progress.rival = str(error)
        logger.error("another cluster has come", extra={"reason": error})
