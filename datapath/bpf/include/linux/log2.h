/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Empty on purpose: bcc brings its own or needs nothing of it. */
