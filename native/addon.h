// SPDX-License-Identifier: Apache-2.0
// What the files of the addon share: argument helpers and the registration of each concern.
//
// Every entry point is stateless. A system call that fails gives minus errno, never an exception;
// wrong argument types are a programmer's mistake and throw a TypeError.

#ifndef BLOCKWRIGHT_ADDON_H
#define BLOCKWRIGHT_ADDON_H

#define NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED
#define NAPI_VERSION 8
#include <node_api.h>

#include <stddef.h>
#include <stdint.h>

namespace blockwright {

/** The arguments of one call; `ok` is false (and a TypeError pending) once one was wrong. */
class Arguments {
 public:
  static const size_t kMost = 7;

  Arguments(napi_env env, napi_callback_info info);

  int Descriptor(size_t index);
  /** A safe integer, such as an offset or a length. */
  int64_t Integer(size_t index);
  /** The bytes of a Uint8Array, over an ArrayBuffer or a SharedArrayBuffer. */
  uint8_t* Bytes(size_t index, size_t* length);
  /** A string, cut short to `size` bytes with the zero that ends it. */
  void Text(size_t index, char* into, size_t size);
  /** The numbers of a Float64Array. */
  const double* Numbers(size_t index, size_t* count);
  /** The first number of an Int32Array. */
  const int32_t* Flag(size_t index);
  napi_value Value(size_t index) const { return values_[index]; }

  bool ok() const { return ok_; }

 private:
  void Fail(const char* message);

  napi_env env_;
  napi_value values_[kMost];
  bool ok_;
};

/** How many leading bytes are zero. */
size_t ZeroPrefixOf(const uint8_t* bytes, size_t length);

napi_value MakeNumber(napi_env env, int64_t value);

/** Adds a function to the exports; false with a pending exception on failure. */
bool Export(napi_env env, napi_value exports, const char* name, napi_callback callback);

bool RegisterCopy(napi_env env, napi_value exports);
bool RegisterCrypt(napi_env env, napi_value exports);
bool RegisterDerive(napi_env env, napi_value exports);
bool RegisterFileIo(napi_env env, napi_value exports);
bool RegisterLocks(napi_env env, napi_value exports);
bool RegisterScan(napi_env env, napi_value exports);

}  // namespace blockwright

#endif
