// SPDX-License-Identifier: Apache-2.0
// Encryption of sectors, in place and on the calling thread.

#include "addon.h"
#include "aes.h"

namespace blockwright {

namespace {

const size_t kVector = 16;
const int64_t kEncrypts = 4;

bool IsKeyOf(SectorMode mode, size_t bytes) {
  size_t one = mode == SectorMode::kXts ? bytes / 2 : bytes;
  return bytes % 8 == 0 && (one == 16 || one == 24 || one == 32);
}

/**
 * cryptSectors(way, key, data, vectors, sectorBytes): `way` is the mode (0 ECB, 1 CBC, 2 XTS), plus
 * 4 to encrypt.
 */
napi_value CryptSectorsNow(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  int64_t way = arguments.Integer(0);
  SectorJob job;
  size_t vector_bytes = 0;
  job.key = arguments.Bytes(1, &job.key_bytes);
  job.data = arguments.Bytes(2, &job.data_bytes);
  job.vectors = arguments.Bytes(3, &vector_bytes);
  int64_t sector_bytes = arguments.Integer(4);
  if (!arguments.ok()) return nullptr;
  job.mode = static_cast<SectorMode>(way & 3);
  job.encrypts = (way & kEncrypts) != 0;
  job.sector_bytes = static_cast<size_t>(sector_bytes);
  bool fits = (way & 3) < 3 && IsKeyOf(job.mode, job.key_bytes) && sector_bytes > 0 &&
              job.sector_bytes % kVector == 0 && job.data_bytes % job.sector_bytes == 0;
  bool covered = fits && (job.mode == SectorMode::kEcb ||
                          vector_bytes / kVector >= job.data_bytes / job.sector_bytes);
  if (!covered) {
    napi_throw_type_error(env, nullptr, "key, sectors and vectors do not fit each other");
    return nullptr;
  }
  return MakeNumber(env, CryptSectors(job));
}

}  // namespace

bool RegisterCrypt(napi_env env, napi_value exports) {
  return Export(env, exports, "cryptSectors", CryptSectorsNow);
}

}  // namespace blockwright
