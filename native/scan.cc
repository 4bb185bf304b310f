// SPDX-License-Identifier: Apache-2.0
// Looks for zero bytes at memory speed.

#include "addon.h"

#include <string.h>

namespace blockwright {
namespace {

const size_t kBlock = 256;

bool BlockIsZero(const uint8_t* bytes) {
  uint64_t words[kBlock / sizeof(uint64_t)];
  memcpy(words, bytes, kBlock);
  uint64_t seen = 0;
  for (size_t index = 0; index < kBlock / sizeof(uint64_t); index += 1) seen |= words[index];
  return seen == 0;
}

// (bytes): how many leading bytes are zero.
napi_value ZeroPrefix(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  size_t length;
  const uint8_t* bytes = arguments.Bytes(0, &length);
  if (!arguments.ok()) return nullptr;
  return MakeNumber(env, static_cast<int64_t>(ZeroPrefixOf(bytes, length)));
}

}  // namespace

size_t ZeroPrefixOf(const uint8_t* bytes, size_t length) {
  size_t at = 0;
  while (length - at >= kBlock && BlockIsZero(bytes + at)) at += kBlock;
  while (at < length && bytes[at] == 0) at += 1;
  return at;
}

bool RegisterScan(napi_env env, napi_value exports) {
  return Export(env, exports, "zeroPrefix", ZeroPrefix);
}

}  // namespace blockwright
