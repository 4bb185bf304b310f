// SPDX-License-Identifier: Apache-2.0
// Byte locks of open file descriptions (Linux): shared locks are set, exclusive ones only tested.

#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

namespace blockwright {
namespace {

struct flock Range(short type, int64_t start, int64_t length) {
  struct flock range;
  memset(&range, 0, sizeof(range));
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = start;
  range.l_len = length;
  return range;
}

napi_value Set(napi_env env, napi_callback_info info, short type) {
  Arguments arguments(env, info);
  int descriptor = arguments.Descriptor(0);
  int64_t start = arguments.Integer(1);
  int64_t length = arguments.Integer(2);
  if (!arguments.ok()) return nullptr;
  struct flock range = Range(type, start, length);
  int result = fcntl(descriptor, F_OFD_SETLK, &range);
  return MakeNumber(env, result < 0 ? -errno : 0);
}

// (descriptor, start, length): sets a shared lock; 0 or minus errno.
napi_value LockShared(napi_env env, napi_callback_info info) {
  return Set(env, info, F_RDLCK);
}

// (descriptor, start, length): 0 or minus errno.
napi_value Unlock(napi_env env, napi_callback_info info) {
  return Set(env, info, F_UNLCK);
}

// (descriptor, start, length): 1 if another description holds a lock there, 0 if not, or -errno.
napi_value TestLock(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  int descriptor = arguments.Descriptor(0);
  int64_t start = arguments.Integer(1);
  int64_t length = arguments.Integer(2);
  if (!arguments.ok()) return nullptr;
  struct flock range = Range(F_WRLCK, start, length);
  if (fcntl(descriptor, F_OFD_GETLK, &range) < 0) return MakeNumber(env, -errno);
  return MakeNumber(env, range.l_type == F_UNLCK ? 0 : 1);
}

}  // namespace

bool RegisterLocks(napi_env env, napi_value exports) {
  return Export(env, exports, "lockShared", LockShared) &&
         Export(env, exports, "unlock", Unlock) && Export(env, exports, "testLock", TestLock);
}

}  // namespace blockwright
