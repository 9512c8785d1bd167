/* The main of all programs of cmocka cases: see cmocka_main.h. SPDX-License-Identifier: Apache-2.0 */
#include "cmocka_main.h"

#include <stdlib.h>

int main(int argc, char **argv) {
    setenv("NVLX_LOG_LEVEL", "0", 0); /* refusals are what tests are made of */
    begin_process(argc, argv, program.roles, program.child_seconds);
    watchdog(0); /* ctest has one */
    on_failure(_fail);
    if (program.run)
        return program.run(argc, argv);
    return _cmocka_run_group_tests(program.name, program.cases, program.count, program.begin, NULL);
}
