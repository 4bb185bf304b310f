// SPDX-License-Identifier: Apache-2.0
// AES over whole sectors, with the processor's own instructions where it has them.

#ifndef BLOCKWRIGHT_AES_H
#define BLOCKWRIGHT_AES_H

#include <stddef.h>
#include <stdint.h>

namespace blockwright {

enum class SectorMode { kEcb = 0, kCbc = 1, kXts = 2 };

/** What encrypts sectors; the keys are the caller's. */
struct SectorCipher {
  SectorMode mode = SectorMode::kEcb;
  /** 16, 24 or 32 bytes; two such keys for XTS. */
  const uint8_t* key = nullptr;
  size_t key_bytes = 0;
  /** Vectors are the sector's number, in 32 bits rather than 64. */
  bool has_short_vectors = false;
  /** Encrypts the vectors (essiv), when it is not empty. */
  const uint8_t* vector_key = nullptr;
  size_t vector_key_bytes = 0;
  size_t sector_bytes = 0;
  /** Numbers of vectors from one sector to the next. */
  uint64_t vector_step = 1;
  /** Number of the vector of sector 0. */
  uint64_t first_vector = 0;
  /** Leaves out the widest instructions: for tests. */
  bool is_narrow = false;
};

const int kCipherModes = 3;
/** Of a `way`: the mode, plus these. */
const int64_t kWayEncrypts = 4;
const int64_t kWayShortVectors = 8;
const int64_t kWayNarrow = 16;
/** Vectors count 512 bytes, however long sectors are. */
const int64_t kWayShortCounts = 32;

/** Mode and vectors of `way`; false when there is no such, or sizes do not fit each other. */
bool SetCipher(SectorCipher* cipher, int64_t way, int64_t sector_bytes);

/** In place; `bytes` are whole sectors. 0, or minus ENOTSUP where the processor has no AES. */
int CryptRange(const SectorCipher& cipher, bool encrypts, uint8_t* data, size_t bytes,
               uint64_t first_sector);

/** What vectors count with kWayShortCounts. */
const size_t kShortCount = 512;

}  // namespace blockwright

#endif
