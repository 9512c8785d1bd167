/* A small valid descriptor, which tests take apart. SPDX-License-Identifier: Apache-2.0 */
#ifndef DESCRIPTOR_TEXT_H
#define DESCRIPTOR_TEXT_H

#define HANDLE     "deadbeefdeadbeef"
#define DEVICE_END "00102030405060708090a0b0c0d0e0f"
#define DEVICE     "0" DEVICE_END
#define PROCESS                                                                                                        \
    "{\"boot_id\":\"0c2f5a9e-1111-4222-8333-444455556666\",\"pid\":\"0x7b\",\"pid_namespace\":\"0xeffffffc\","         \
    "\"start_time\":\"0x1234\",\"engine\":\"00112233445566778899aabbccddeeff\",\"generation\":\"0x5\"}"
#define SEGMENTS                                                                                                       \
    "[{\"kind\":\"cuda_malloc\",\"device\":\"" DEVICE "\",\"serial\":\"0x1\",\"base\":\"0x7f0000000000\","             \
    "\"size\":\"0x1000\",\"handle\":\"" HANDLE "\"},{\"kind\":\"cuda_malloc\",\"device\":\"" DEVICE "\","              \
    "\"serial\":\"0x2\",\"base\":\"0x7f0000001000\",\"size\":\"0x2000\",\"handle\":\"" HANDLE "\"}]"
#define REGIONS                                                                                                        \
    "[[\"a\",\"0 0x0 0x200 rw\"],[\"b\",\"1 0x1ff0 0x10 r\"],[null,\"1 0x0 0x2000 -\"],[\"zero\",\"- 0x0 0x0 w\"]]"
#define VALID                                                                                                          \
    "{\"format\":\"nvlxfer\",\"version\":[1,0],\"backend\":\"cuda\",\"process\":" PROCESS ",\"segments\":" SEGMENTS    \
    ",\"regions\":" REGIONS "}"

/* A run of three chunks, with regions over one, two and three of them; a chunk beyond a gap; a pool; fabric. */
#define CHUNK(kind, serial, base, more)                                                                                \
    "{\"kind\":\"" kind "\",\"device\":\"" DEVICE "\",\"serial\":\"" serial "\",\"base\":\"" base                      \
    "\",\"size\":\"0x1000\"" more "}"
#define FILE_FIELD   ",\"file\":true"
#define HANDLE_FIELD ",\"handle\":\"" HANDLE "\""
#define KINDS_SEGMENTS                                                                                                 \
    "[" CHUNK("vmm", "0x1", "0x10000", FILE_FIELD) "," CHUNK("vmm", "0x2", "0x11000", FILE_FIELD) "," CHUNK(           \
        "vmm", "0x3", "0x12000",                                                                                       \
        FILE_FIELD) "," CHUNK("vmm", "0x4", "0x14000",                                                                 \
                              FILE_FIELD) "," CHUNK("pool", "0x5", "0x15000",                                          \
                                                    FILE_FIELD                                                         \
                                                        HANDLE_FIELD) "," CHUNK("fabric", "0x6", "0x16000",            \
                                                                                HANDLE_FIELD) "," CHUNK("fabric",      \
                                                                                                        "0x7",         \
                                                                                                        "0x17000",     \
                                                                                                        HANDLE_FIELD) "]"
#define KINDS_REGIONS                                                                                                  \
    "[[\"one\",\"0 0xff0 0x10 r\"],[\"two\",\"1 0xfff 0x2 rw\"],[\"three\",\"0 0xfff 0x1002 r\"],"                     \
    "[\"all\",\"0 0x0 0x3000 r\"],[\"pool\",\"4 0x0 0x1000 w\"],[\"fabric\",\"5 0x0 0x1001 r\"]]"
#define KINDS                                                                                                          \
    "{\"format\":\"nvlxfer\",\"version\":[1,0],\"backend\":\"cuda\",\"process\":" PROCESS                              \
    ",\"segments\":" KINDS_SEGMENTS ",\"regions\":" KINDS_REGIONS "}"
#define X16(text) text text text text text text text text text text text text text text text text

#endif
