/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* All maps, pinned below MD_PINS. Sizes come from datapath/layout.py as MD_*_SIZE. */
#ifndef MESHD_MAPS_H
#define MESHD_MAPS_H

#include "layout.h"
#include "drop.h"

/* address -> peer: pods and nodes; asked first, a hash is four times as fast as a trie */
BPF_TABLE_PINNED("hash", struct addr_key, struct peer, md_ipcache, MD_IPCACHE_SIZE, MD_PINS "/md_ipcache", BPF_F_NO_PREALLOC);
/* CIDR -> peer: the fallback */
BPF_TABLE_PINNED("lpm_trie", struct cidr_key, struct peer, md_cidrs, MD_CIDRS_SIZE, MD_PINS "/md_cidrs", BPF_F_NO_PREALLOC);
/* address -> endpoint: the pods of this node */
BPF_TABLE_PINNED("hash", struct addr_key, struct endpoint, md_endpoint, MD_ENDPOINT_SIZE, MD_PINS "/md_endpoint", BPF_F_NO_PREALLOC);
/* frontend, slot -> backend number */
BPF_TABLE_PINNED("hash", struct svc4_key, struct svc, md_svc4, MD_SVC4_SIZE, MD_PINS "/md_svc4", BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("hash", struct svc6_key, struct svc, md_svc6, MD_SVC6_SIZE, MD_PINS "/md_svc6", BPF_F_NO_PREALLOC);
/* backend number -> backend */
BPF_TABLE_PINNED("hash", __u32, struct be4, md_be4, MD_BE4_SIZE, MD_PINS "/md_be4", BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("hash", __u32, struct be6, md_be6, MD_BE6_SIZE, MD_PINS "/md_be6", BPF_F_NO_PREALLOC);
/* socket, backend -> frontend: written by the socket hooks only */
BPF_TABLE_PINNED("lru_hash", struct rev4_key, struct rev4, md_rev4, MD_REV4_SIZE, MD_PINS "/md_rev4", 0);
BPF_TABLE_PINNED("lru_hash", struct rev6_key, struct rev6, md_rev6, MD_REV6_SIZE, MD_PINS "/md_rev6", 0);
/* drop reason -> counter, written by the programs only */
BPF_TABLE_PINNED("percpu_array", __u32, struct counter, md_drops, MD_DROPS_SIZE, MD_PINS "/md_drops", 0);
/* 0 -> cfg */
BPF_TABLE_PINNED("array", __u32, struct cfg, md_cfg, MD_CFG_SIZE, MD_PINS "/md_cfg", 0);

#endif
