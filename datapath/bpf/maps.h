/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* All maps, pinned below MD_PINS. Sizes come from datapath/layout.py as MD_*_SIZE. */
#ifndef MESHD_MAPS_H
#define MESHD_MAPS_H

#include "layout.h"
#include "drop.h"

/* 0, 1, ... -> 64 bits each: the networks that any entry of the maps below is in; known.h. Read and written as memory. */
BPF_TABLE_PINNED("array", __u32, struct known, md_known, MD_KNOWN_SIZE, MD_PINS "/md_known", BPF_F_MMAPABLE);
/* address -> peer: pods and nodes; asked first, a hash is four times as fast as a trie */
BPF_TABLE_PINNED("hash", struct addr_key, struct peer, md_ipcache, MD_IPCACHE_SIZE, MD_PINS "/md_ipcache", BPF_F_NO_PREALLOC);
/* CIDR -> peer: the fallback */
BPF_TABLE_PINNED("lpm_trie", struct cidr_key, struct peer, md_cidrs, MD_CIDRS_SIZE, MD_PINS "/md_cidrs", BPF_F_NO_PREALLOC);
/* address -> node: the nodes of all clusters */
BPF_TABLE_PINNED("hash", struct addr_key, struct node, md_node, MD_NODE_SIZE, MD_PINS "/md_node", BPF_F_NO_PREALLOC);
/* pod, remote node -> peer: answers to a node's own traffic go back the way it came; written by the programs only */
BPF_TABLE_PINNED("lru_hash", struct reply_key, struct peer, md_replies, MD_REPLIES_SIZE, MD_PINS "/md_replies", 0);
/* address -> endpoint: the pods of this node */
BPF_TABLE_PINNED("hash", struct addr_key, struct endpoint, md_endpoint, MD_ENDPOINT_SIZE, MD_PINS "/md_endpoint", BPF_F_NO_PREALLOC);
/* frontend, slot -> backend number */
BPF_TABLE_PINNED("hash", struct svc4_key, struct svc, md_svc4, MD_SVC4_SIZE, MD_PINS "/md_svc4", BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("hash", struct svc6_key, struct svc, md_svc6, MD_SVC6_SIZE, MD_PINS "/md_svc6", BPF_F_NO_PREALLOC);
/* backend number -> backend */
BPF_TABLE_PINNED("hash", __u32, struct be4, md_be4, MD_BE4_SIZE, MD_PINS "/md_be4", BPF_F_NO_PREALLOC);
BPF_TABLE_PINNED("hash", __u32, struct be6, md_be6, MD_BE6_SIZE, MD_PINS "/md_be6", BPF_F_NO_PREALLOC);
/* 0 -> the number after which the next new backend's comes; the programs do not ask for it */
BPF_TABLE_PINNED("array", __u32, __u32, md_numbers, MD_NUMBERS_SIZE, MD_PINS "/md_numbers", 0);
/* What md_maglev holds: one value each, replaced as a whole. The map pinned here is their pattern only. */
struct maglev {
	__u32 backend[MD_MAGLEV_ENTRIES];
};
BPF_TABLE_PINNED("array", __u32, struct maglev, md_maglev_in, MD_MAGLEV_IN_SIZE, MD_PINS "/md_maglev_in", 0);
/* frontend -> Maglev table */
BPF_TABLE_PINNED("hash_of_maps$md_maglev_in", struct front_key, __u32, md_maglev, MD_MAGLEV_SIZE, MD_PINS "/md_maglev", BPF_F_NO_PREALLOC);
/* client, frontend -> backend: written by the programs only */
BPF_TABLE_PINNED("lru_hash", struct aff_key, struct aff, md_aff, MD_AFF_SIZE, MD_PINS "/md_aff", 0);
/* frontend, backend number: which backends a client may stay with */
BPF_TABLE_PINNED("hash", struct affm_key, __u32, md_affm, MD_AFFM_SIZE, MD_PINS "/md_affm", BPF_F_NO_PREALLOC);
/* flow -> backend, and its reply -> frontend: written by the tc programs only */
BPF_TABLE_PINNED("lru_hash", struct nat_key, struct nat, md_nat, MD_NAT_SIZE, MD_PINS "/md_nat", 0);
/* enum used -> 1 once that map has held an entry, written by the programs only: until then no packet pays for a look */
BPF_TABLE_PINNED("array", __u32, __u32, md_used, MD_USED_SIZE, MD_PINS "/md_used", 0);
/* socket, backend -> frontend: written by the socket hooks only */
BPF_TABLE_PINNED("lru_hash", struct rev4_key, struct rev4, md_rev4, MD_REV4_SIZE, MD_PINS "/md_rev4", 0);
BPF_TABLE_PINNED("lru_hash", struct rev6_key, struct rev6, md_rev6, MD_REV6_SIZE, MD_PINS "/md_rev6", 0);
/* identity of pods of this node -> what holds for them */
BPF_TABLE_PINNED("hash", __u32, struct subject, md_subject, MD_SUBJECT_SIZE, MD_PINS "/md_subject", BPF_F_NO_PREALLOC);
/* subject, peer, direction, protocol, port block -> verdict */
BPF_TABLE_PINNED("lpm_trie", struct policy_key, struct policy_entry, md_policy, MD_POLICY_SIZE, MD_PINS "/md_policy", BPF_F_NO_PREALLOC);
/* prefix -> who it is, for addresses outside the mesh */
BPF_TABLE_PINNED("lpm_trie", struct cidr_key, struct outside, md_outside, MD_OUTSIDE_SIZE, MD_PINS "/md_outside", BPF_F_NO_PREALLOC);
/* ifindex -> identity, of pods that a policy holds for */
BPF_TABLE_PINNED("hash", __u32, struct iface, md_iface, MD_IFACE_SIZE, MD_PINS "/md_iface", BPF_F_NO_PREALLOC);
/* connections that a policy allowed: written by the programs only */
BPF_TABLE_PINNED("lru_hash", struct ct4_key, struct ct, md_ct4, MD_CT4_SIZE, MD_PINS "/md_ct4", 0);
BPF_TABLE_PINNED("lru_hash", struct ct6_key, struct ct, md_ct6, MD_CT6_SIZE, MD_PINS "/md_ct6", 0);
/* reason -> how many events were sent of it lately */
BPF_TABLE_PINNED("percpu_array", __u32, struct limit, md_limit, MD_LIMIT_SIZE, MD_PINS "/md_limit", 0);
/* drop reason -> counter, written by the programs only */
BPF_TABLE_PINNED("percpu_array", __u32, struct counter, md_drops, MD_DROPS_SIZE, MD_PINS "/md_drops", 0);
/* 0 -> cfg */
BPF_TABLE_PINNED("array", __u32, struct cfg, md_cfg, MD_CFG_SIZE, MD_PINS "/md_cfg", 0);

#endif
