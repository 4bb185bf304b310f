// SPDX-License-Identifier: Apache-2.0
// Registration of the addon, and the reading of arguments.

#include "addon.h"

namespace blockwright {

Arguments::Arguments(napi_env env, napi_callback_info info) : env_(env), ok_(true) {
  size_t count = kMost;
  if (napi_get_cb_info(env, info, &count, values_, nullptr, nullptr) != napi_ok) {
    Fail("no arguments");
  }
}

int Arguments::Descriptor(size_t index) {
  int32_t value = -1;
  if (ok_ && napi_get_value_int32(env_, values_[index], &value) != napi_ok) {
    Fail("a file descriptor is expected");
  }
  return value;
}

int64_t Arguments::Integer(size_t index) {
  int64_t value = 0;
  if (ok_ && napi_get_value_int64(env_, values_[index], &value) != napi_ok) {
    Fail("an integer is expected");
  }
  return value;
}

uint8_t* Arguments::Bytes(size_t index, size_t* length) {
  napi_typedarray_type type;
  void* data = nullptr;
  *length = 0;
  if (!ok_) return nullptr;
  napi_status status =
      napi_get_typedarray_info(env_, values_[index], &type, length, &data, nullptr, nullptr);
  if (status != napi_ok || type != napi_uint8_array) Fail("a Uint8Array is expected");
  return static_cast<uint8_t*>(data);
}

void Arguments::Text(size_t index, char* into, size_t size) {
  if (ok_ && napi_get_value_string_utf8(env_, values_[index], into, size, nullptr) != napi_ok) {
    Fail("a string is expected");
  }
}

const double* Arguments::Numbers(size_t index, size_t* count) {
  napi_typedarray_type type;
  void* data = nullptr;
  *count = 0;
  if (!ok_) return nullptr;
  napi_status status =
      napi_get_typedarray_info(env_, values_[index], &type, count, &data, nullptr, nullptr);
  if (status != napi_ok || type != napi_float64_array) Fail("a Float64Array is expected");
  return static_cast<const double*>(data);
}

const int32_t* Arguments::Flag(size_t index) {
  napi_typedarray_type type;
  void* data = nullptr;
  size_t count = 0;
  if (!ok_) return nullptr;
  napi_status status =
      napi_get_typedarray_info(env_, values_[index], &type, &count, &data, nullptr, nullptr);
  if (status != napi_ok || type != napi_int32_array || count == 0) {
    Fail("an Int32Array is expected");
  }
  return static_cast<const int32_t*>(data);
}

void Arguments::Fail(const char* message) {
  ok_ = false;
  napi_throw_type_error(env_, nullptr, message);
}

napi_value MakeNumber(napi_env env, int64_t value) {
  napi_value result = nullptr;
  napi_create_int64(env, value, &result);
  return result;
}

bool Export(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function;
  return napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function) ==
             napi_ok &&
         napi_set_named_property(env, exports, name, function) == napi_ok;
}

}  // namespace blockwright

NAPI_MODULE_INIT() {
  using namespace blockwright;
  bool registered = RegisterFileIo(env, exports) && RegisterLocks(env, exports) &&
                    RegisterScan(env, exports) && RegisterCopy(env, exports) &&
                    RegisterCrypt(env, exports) && RegisterDerive(env, exports);
  if (!registered) napi_throw_error(env, nullptr, "blockwright.node could not be registered");
  return exports;
}
