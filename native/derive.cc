// SPDX-License-Identifier: Apache-2.0
// Keys from passwords on a thread of the pool, which can be told to stop.

#include <errno.h>
#include <string.h>

#include <memory>
#include <vector>

#include "addon.h"
#include "pbkdf2.h"

namespace blockwright {
namespace {

const int64_t kMostIterations = 0x7fffffff;
const int64_t kMostKeyBytes = 4096;

struct DeriveTask {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref cancel_owner = nullptr;
  const int32_t* cancel = nullptr;
  uint32_t iterations = 0;
  std::vector<uint8_t> password;
  std::vector<uint8_t> salt;
  std::vector<uint8_t> key;
  bool whole = false;
};

void Wipe(std::vector<uint8_t>* bytes) {
  if (!bytes->empty()) explicit_bzero(bytes->data(), bytes->size());
}

void RunDerive(napi_env, void* data) {
  DeriveTask* task = static_cast<DeriveTask*>(data);
  task->whole = DeriveSha256({task->password.data(), task->password.size()},
                             {task->salt.data(), task->salt.size()}, task->iterations,
                             task->cancel, task->key.data(), task->key.size());
}

void FinishDerive(napi_env env, napi_status, void* data) {
  std::unique_ptr<DeriveTask> task(static_cast<DeriveTask*>(data));
  size_t length = task->whole ? task->key.size() : 0;
  void* bytes = nullptr;
  napi_value buffer;
  napi_value key;
  napi_delete_reference(env, task->cancel_owner);
  napi_delete_async_work(env, task->work);
  if (napi_create_arraybuffer(env, length, &bytes, &buffer) == napi_ok &&
      napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &key) == napi_ok) {
    if (length > 0) memcpy(bytes, task->key.data(), length);
    napi_resolve_deferred(env, task->deferred, key);
  } else {
    napi_value message;
    napi_value error;
    napi_create_string_utf8(env, "no memory for the key", NAPI_AUTO_LENGTH, &message);
    napi_create_error(env, nullptr, message, &error);
    napi_reject_deferred(env, task->deferred, error);
  }
  Wipe(&task->password);
  Wipe(&task->key);
}

// (password, salt, iterations, keyBytes, cancel): a promise of the key, empty once `cancel[0]` was
// not 0; null where the processor cannot.
napi_value DeriveLater(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::unique_ptr<DeriveTask> task(new DeriveTask());
  size_t password_bytes = 0;
  size_t salt_bytes = 0;
  const uint8_t* password = arguments.Bytes(0, &password_bytes);
  const uint8_t* salt = arguments.Bytes(1, &salt_bytes);
  int64_t iterations = arguments.Integer(2);
  int64_t key_bytes = arguments.Integer(3);
  task->cancel = arguments.Flag(4);
  if (!arguments.ok()) return nullptr;
  if (iterations < 1 || iterations > kMostIterations || key_bytes < 1 ||
      key_bytes > kMostKeyBytes) {
    napi_throw_type_error(env, nullptr, "iterations or key length out of range");
    return nullptr;
  }
  napi_value promise;
  if (!CanDerive()) {
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
      napi_create_reference(env, arguments.Value(4), 1, &task->cancel_owner) == napi_ok &&
      napi_create_promise(env, &task->deferred, &promise) == napi_ok &&
      napi_create_string_utf8(env, "blockwright.derive", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_async_work(env, nullptr, name, RunDerive, FinishDerive, task.get(),
                             &task->work) == napi_ok &&
      napi_queue_async_work(env, task->work) == napi_ok;
  if (!queued) {
    Wipe(&task->password);
    return nullptr;
  }
  task.release();
  return promise;
}

}  // namespace

bool RegisterDerive(napi_env env, napi_value exports) {
  return Export(env, exports, "deriveLater", DeriveLater);
}

}  // namespace blockwright
