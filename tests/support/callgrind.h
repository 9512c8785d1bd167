/* Instructions of this program, counted by callgrind: what a clock cannot tell on a busy machine.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef CALLGRIND_H
#define CALLGRIND_H

#include <stdbool.h>

/* Else says that the program is skipped. */
bool callgrind_is_here(void);
/* Runs this program with these arguments, and counts in the functions: names with blanks between. One that another one
 * calls turns the count off until it returns. -1: there is no count. */
double callgrind_count(const char *functions, const char *arguments);

#endif
