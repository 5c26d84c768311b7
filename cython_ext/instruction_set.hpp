// The name of the instruction set being compiled, as part of names and as text. Everything but one table of functions
// per core has internal linkage, and nothing of the C++ library is used: the linker keeps one copy of a shared inline
// function, and it might be the one that older processors cannot run.
#pragma once

#ifndef MPIDVC_ISA
#define MPIDVC_ISA baseline
#endif

#define MPIDVC_TEXT_(x) #x
#define MPIDVC_TEXT(x) MPIDVC_TEXT_(x)
#define MPIDVC_JOIN_(a, b) a##b
#define MPIDVC_JOIN(a, b) MPIDVC_JOIN_(a, b)
