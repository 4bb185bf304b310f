// SPDX-License-Identifier: Apache-2.0
// Encryption of sectors, in place and on the calling thread.

#include "addon.h"
#include "aes.h"

namespace blockwright {

namespace {

const size_t kBlock = 16;

bool IsKeyOf(const SectorCipher& cipher) {
  size_t one = cipher.mode == SectorMode::kXts ? cipher.key_bytes / 2 : cipher.key_bytes;
  size_t vectors = cipher.vector_key_bytes;
  bool fits = one == 16 || one == 24 || one == 32;
  return fits && cipher.key_bytes % 8 == 0 &&
         (vectors == 0 || vectors == 16 || vectors == 24 || vectors == 32);
}

// cryptRange(way, key, vectorKey, data, vector, sectorBytes): see aes.h for `way`; `vector` is the
// number of the first sector's.
napi_value CryptRangeNow(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  SectorCipher cipher;
  size_t bytes = 0;
  int64_t way = arguments.Integer(0);
  cipher.key = arguments.Bytes(1, &cipher.key_bytes);
  cipher.vector_key = arguments.Bytes(2, &cipher.vector_key_bytes);
  uint8_t* data = arguments.Bytes(3, &bytes);
  int64_t vector = arguments.Integer(4);
  int64_t sector_bytes = arguments.Integer(5);
  if (!arguments.ok()) return nullptr;
  if (!SetCipher(&cipher, way, sector_bytes) || vector < 0 || bytes % cipher.sector_bytes != 0) {
    napi_throw_type_error(env, nullptr, "key, sectors and data do not fit each other");
    return nullptr;
  }
  bool encrypts = (way & kWayEncrypts) != 0;
  cipher.first_vector = static_cast<uint64_t>(vector);
  return MakeNumber(env, CryptRange(cipher, encrypts, data, bytes, 0));
}

}  // namespace

bool SetCipher(SectorCipher* cipher, int64_t way, int64_t sector_bytes) {
  if ((way & 3) >= kCipherModes || sector_bytes <= 0) return false;
  cipher->mode = static_cast<SectorMode>(way & 3);
  cipher->has_short_vectors = (way & kWayShortVectors) != 0;
  cipher->is_narrow = (way & kWayNarrow) != 0;
  cipher->sector_bytes = static_cast<size_t>(sector_bytes);
  if ((way & kWayShortCounts) != 0) {
    if (cipher->sector_bytes % kShortCount != 0) return false;
    cipher->vector_step = cipher->sector_bytes / kShortCount;
  }
  return cipher->sector_bytes % kBlock == 0 && IsKeyOf(*cipher);
}

bool RegisterCrypt(napi_env env, napi_value exports) {
  return Export(env, exports, "cryptRange", CryptRangeNow);
}

}  // namespace blockwright
