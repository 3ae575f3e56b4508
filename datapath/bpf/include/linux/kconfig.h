/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Stands in for kernel headers that bcc asks for: network programs need no others. */
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_64BIT 1
