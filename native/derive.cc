// SPDX-License-Identifier: Apache-2.0
// Keys from passwords on a thread of the pool, which can be told to stop; and the chain of digests
// that key material is mixed with.

#include <errno.h>
#include <string.h>
#include <time.h>

#include <memory>
#include <vector>

#include "addon.h"
#include "pbkdf2.h"

namespace blockwright {
namespace {

const int64_t kMostIterations = 0x7fffffff;
const size_t kMostKeyBytes = 4096;
/** Longer names of digests are cut short, and nobody's. */
const size_t kNameBytes = 16;

struct DeriveTask {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref cancel_owner = nullptr;
  napi_ref cost_owner = nullptr;
  const Deriver* deriver = nullptr;
  const int32_t* cancel = nullptr;
  double* cost = nullptr;
  double cpu_ms = 0;
  uint32_t iterations = 0;
  std::vector<uint8_t> password;
  std::vector<uint8_t> salt;
  std::vector<uint8_t> key;
  bool whole = false;

  ~DeriveTask() {
    explicit_bzero(password.data(), password.size());
    explicit_bzero(key.data(), key.size());
  }
};

/** What this thread has had of the processor, in milliseconds. */
double ThreadMs() {
  timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 0;
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

/** What a derivation has left on the stack below its caller. */
__attribute__((noinline)) void WipeStack() {
  uint8_t spent[8192];
  explicit_bzero(spent, sizeof spent);
}

void RunDerive(napi_env, void* data) {
  DeriveTask* task = static_cast<DeriveTask*>(data);
  double start = ThreadMs();
  task->whole = task->deriver->derive({task->password.data(), task->password.size()},
                                      {task->salt.data(), task->salt.size()}, task->iterations,
                                      task->cancel, task->key.data(), task->key.size());
  WipeStack();
  task->cpu_ms = ThreadMs() - start;
}

void FinishDerive(napi_env env, napi_status, void* data) {
  std::unique_ptr<DeriveTask> task(static_cast<DeriveTask*>(data));
  size_t length = task->whole ? task->key.size() : 0;
  void* bytes = nullptr;
  napi_value buffer = nullptr;
  napi_value key = nullptr;
  *task->cost = task->cpu_ms;
  napi_delete_reference(env, task->cancel_owner);
  napi_delete_reference(env, task->cost_owner);
  napi_delete_async_work(env, task->work);
  if (napi_create_arraybuffer(env, length, &bytes, &buffer) == napi_ok &&
      napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &key) == napi_ok) {
    if (length > 0) memcpy(bytes, task->key.data(), length);
    napi_resolve_deferred(env, task->deferred, key);
  } else {
    napi_value message = nullptr;
    napi_value error = nullptr;
    napi_create_string_utf8(env, "no memory for the key", NAPI_AUTO_LENGTH, &message);
    napi_create_error(env, nullptr, message, &error);
    napi_reject_deferred(env, task->deferred, error);
  }
}

// (digest, password, salt, iterations, keyBytes, cancel, cost): a promise of the key, empty once
// `cancel[0]` was not 0, with the milliseconds of the processor in `cost[0]`; null where the
// processor cannot.
napi_value DeriveByDigest(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::unique_ptr<DeriveTask> task(new DeriveTask());
  size_t password_bytes = 0;
  size_t salt_bytes = 0;
  char digest[kNameBytes] = {};
  arguments.Text(0, digest, sizeof digest);
  const uint8_t* password = arguments.Bytes(1, &password_bytes);
  const uint8_t* salt = arguments.Bytes(2, &salt_bytes);
  int64_t iterations = arguments.Integer(3);
  int64_t key_bytes = arguments.Integer(4);
  task->cancel = arguments.Flag(5);
  size_t cost_count = 0;
  task->cost = const_cast<double*>(arguments.Numbers(6, &cost_count));
  if (!arguments.ok()) return nullptr;
  if (cost_count < 1 || iterations < 1 || iterations > kMostIterations || key_bytes < 1 ||
      key_bytes > static_cast<int64_t>(kMostKeyBytes)) {
    napi_throw_type_error(env, nullptr, "iterations, key or cost out of range");
    return nullptr;
  }
  napi_value promise;
  task->deriver = DeriverOf(digest);
  if (task->deriver == nullptr) {
    napi_get_null(env, &promise);
    return promise;
  }
  task->iterations = static_cast<uint32_t>(iterations);
  task->password.assign(password, password + password_bytes);
  task->salt.assign(salt, salt + salt_bytes);
  task->key.resize(static_cast<size_t>(key_bytes));
  napi_value name;
  // The flag is written to meanwhile, and must live as long as it is read.
  bool queued =
      napi_create_reference(env, arguments.Value(5), 1, &task->cancel_owner) == napi_ok &&
      napi_create_reference(env, arguments.Value(6), 1, &task->cost_owner) == napi_ok &&
      napi_create_promise(env, &task->deferred, &promise) == napi_ok &&
      napi_create_string_utf8(env, "blockwright.derive", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_async_work(env, nullptr, name, RunDerive, FinishDerive, task.get(),
                             &task->work) == napi_ok &&
      napi_queue_async_work(env, task->work) == napi_ok;
  if (!queued) {
    napi_throw_error(env, nullptr, "no memory for a derivation");
    return nullptr;
  }
  task.release();
  return promise;
}

// (digest, stripes, block): mixes whole stripes as long as `block` into it; -ENOTSUP where the
// processor cannot.
napi_value MixStripes(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  size_t stripes_bytes = 0;
  size_t block_bytes = 0;
  char digest[kNameBytes] = {};
  arguments.Text(0, digest, sizeof digest);
  const uint8_t* stripes = arguments.Bytes(1, &stripes_bytes);
  uint8_t* block = arguments.Bytes(2, &block_bytes);
  if (!arguments.ok()) return nullptr;
  if (block_bytes == 0 || block_bytes > kMostKeyBytes || stripes_bytes % block_bytes != 0) {
    napi_throw_type_error(env, nullptr, "stripes are not whole");
    return nullptr;
  }
  const Deriver* deriver = DeriverOf(digest);
  if (deriver == nullptr) return MakeNumber(env, -ENOTSUP);
  deriver->mix({stripes, stripes_bytes}, block, block_bytes);
  WipeStack();
  return MakeNumber(env, 0);
}

}  // namespace

bool RegisterDerive(napi_env env, napi_value exports) {
  return Export(env, exports, "deriveByDigest", DeriveByDigest) &&
         Export(env, exports, "mixStripes", MixStripes);
}

}  // namespace blockwright
