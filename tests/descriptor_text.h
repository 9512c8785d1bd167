/* A small valid descriptor, which tests take apart. SPDX-License-Identifier: Apache-2.0 */
#ifndef DESCRIPTOR_TEXT_H
#define DESCRIPTOR_TEXT_H

#define HANDLE "deadbeefdeadbeef"
#define DEVICE "000102030405060708090a0b0c0d0e0f"
#define PROCESS                                                                                                        \
    "{\"boot_id\":\"0c2f5a9e-1111-4222-8333-444455556666\",\"pid\":\"0x7b\",\"pid_namespace\":\"0xeffffffc\","         \
    "\"start_time\":\"0x1234\",\"engine\":\"00112233445566778899aabbccddeeff\",\"generation\":\"0x5\"}"
#define SEGMENTS                                                                                                       \
    "[{\"kind\":\"cuda_malloc\",\"device\":\"" DEVICE "\",\"serial\":\"0x1\",\"base\":\"0x7f0000000000\","             \
    "\"size\":\"0x1000\",\"handle\":\"" HANDLE "\"},{\"kind\":\"cuda_malloc\",\"device\":\"" DEVICE "\","              \
    "\"serial\":\"0x2\",\"base\":\"0x7f0000001000\",\"size\":\"0x2000\",\"handle\":\"" HANDLE "\"}]"
#define REGIONS                                                                                                        \
    "[[\"a\",0,\"0x0\",\"0x200\",\"rw\"],[\"b\",1,\"0x1ff0\",\"0x10\",\"r\"],[null,1,\"0x0\",\"0x2000\",\"-\"],"       \
    "[\"zero\",null,\"0x0\",\"0x0\",\"w\"]]"
#define VALID                                                                                                          \
    "{\"format\":\"nvlxfer\",\"version\":[1,0],\"backend\":\"cuda\",\"process\":" PROCESS ",\"segments\":" SEGMENTS    \
    ",\"regions\":" REGIONS "}"
#define X16(text) text text text text text text text text text text text text text text text text

#endif
