// SPDX-License-Identifier: Apache-2.0
// System calls on files that Node does not offer: reads that never wait, fallocate, hole seeking.
//
// Offsets are checked by the callers to be within 0 and 2^53 - 1.

#include "addon.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace blockwright {
namespace {

// (descriptor, bytes, offset): bytes read, 0 at the end, -EAGAIN when the disk would be waited for.
napi_value ReadNoWait(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  struct iovec part;
  int descriptor = arguments.Descriptor(0);
  part.iov_base = arguments.Bytes(1, &part.iov_len);
  int64_t offset = arguments.Integer(2);
  if (!arguments.ok()) return nullptr;
  ssize_t count;
  do {
    count = preadv2(descriptor, &part, 1, offset, RWF_NOWAIT);
  } while (count < 0 && errno == EINTR);
  return MakeNumber(env, count < 0 ? -errno : count);
}

// (descriptor, bytes, offset): writes everything; 0 or minus errno.
napi_value WriteAll(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  size_t length;
  int descriptor = arguments.Descriptor(0);
  const uint8_t* bytes = arguments.Bytes(1, &length);
  int64_t offset = arguments.Integer(2);
  if (!arguments.ok()) return nullptr;
  while (length > 0) {
    ssize_t count = pwrite(descriptor, bytes, length, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return MakeNumber(env, -errno);
    if (count == 0) return MakeNumber(env, -EIO);
    bytes += count;
    length -= static_cast<size_t>(count);
    offset += count;
  }
  return MakeNumber(env, 0);
}

int64_t Allocate(int descriptor, int mode, int64_t offset, int64_t length) {
  int result;
  do {
    result = fallocate(descriptor, mode, offset, length);
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : 0;
}

// (descriptor, mode, offset, length): fallocate on this thread; 0 or minus errno.
napi_value AllocateNow(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  int descriptor = arguments.Descriptor(0);
  int64_t mode = arguments.Integer(1);
  int64_t offset = arguments.Integer(2);
  int64_t length = arguments.Integer(3);
  if (!arguments.ok()) return nullptr;
  return MakeNumber(env, Allocate(descriptor, static_cast<int>(mode), offset, length));
}

struct AllocateTask {
  napi_async_work work;
  napi_deferred deferred;
  int descriptor;
  int mode;
  int64_t offset;
  int64_t length;
  int64_t result;
};

void RunAllocate(napi_env, void* data) {
  AllocateTask* task = static_cast<AllocateTask*>(data);
  task->result = Allocate(task->descriptor, task->mode, task->offset, task->length);
}

void FinishAllocate(napi_env env, napi_status status, void* data) {
  AllocateTask* task = static_cast<AllocateTask*>(data);
  int64_t result = status == napi_ok ? task->result : -ECANCELED;
  napi_resolve_deferred(env, task->deferred, MakeNumber(env, result));
  napi_delete_async_work(env, task->work);
  delete task;
}

// (descriptor, mode, offset, length): the same on a thread of the pool; a promise of the result.
napi_value AllocateLater(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  AllocateTask* task = new AllocateTask();
  task->descriptor = arguments.Descriptor(0);
  task->mode = static_cast<int>(arguments.Integer(1));
  task->offset = arguments.Integer(2);
  task->length = arguments.Integer(3);
  napi_value promise;
  napi_value name;
  bool queued =
      arguments.ok() && napi_create_promise(env, &task->deferred, &promise) == napi_ok &&
      napi_create_string_utf8(env, "blockwright.allocate", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_async_work(env, nullptr, name, RunAllocate, FinishAllocate, task,
                             &task->work) == napi_ok &&
      napi_queue_async_work(env, task->work) == napi_ok;
  if (queued) return promise;
  delete task;
  return nullptr;
}

// (descriptor, offset): start of the next data at or after the offset; -ENXIO if there is none.
napi_value SeekData(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  int descriptor = arguments.Descriptor(0);
  int64_t offset = arguments.Integer(1);
  if (!arguments.ok()) return nullptr;
  off_t found = lseek(descriptor, offset, SEEK_DATA);
  return MakeNumber(env, found < 0 ? -errno : found);
}

// (descriptor, offset): start of the next hole at or after the offset; the end counts as one.
napi_value SeekHole(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  int descriptor = arguments.Descriptor(0);
  int64_t offset = arguments.Integer(1);
  if (!arguments.ok()) return nullptr;
  off_t found = lseek(descriptor, offset, SEEK_HOLE);
  return MakeNumber(env, found < 0 ? -errno : found);
}

// (descriptor): size of a regular file, or minus errno.
napi_value FileSize(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  struct stat found;
  int descriptor = arguments.Descriptor(0);
  if (!arguments.ok()) return nullptr;
  return MakeNumber(env, fstat(descriptor, &found) < 0 ? -errno : found.st_size);
}

}  // namespace

bool RegisterFileIo(napi_env env, napi_value exports) {
  return Export(env, exports, "readNoWait", ReadNoWait) &&
         Export(env, exports, "writeAll", WriteAll) &&
         Export(env, exports, "allocateNow", AllocateNow) &&
         Export(env, exports, "allocateLater", AllocateLater) &&
         Export(env, exports, "fileSize", FileSize) &&
         Export(env, exports, "seekData", SeekData) &&
         Export(env, exports, "seekHole", SeekHole);
}

}  // namespace blockwright
