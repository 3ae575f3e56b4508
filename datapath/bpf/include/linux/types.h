/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once
#include_next <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
typedef _Bool bool;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
#define true 1
#define false 0
#define offsetof(type, member) __builtin_offsetof(type, member)
