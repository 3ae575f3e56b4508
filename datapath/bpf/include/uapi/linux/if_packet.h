/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* bcc asks for it under this name. */
#include_next <linux/if_packet.h>
