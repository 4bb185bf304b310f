// SPDX-License-Identifier: Apache-2.0
// AES over whole sectors, with the processor's own instructions where it has them.

#ifndef BLOCKWRIGHT_AES_H
#define BLOCKWRIGHT_AES_H

#include <stddef.h>
#include <stdint.h>

namespace blockwright {

enum class SectorMode { kEcb = 0, kCbc = 1, kXts = 2 };

/** A range of whole sectors and what encrypts them. */
struct SectorJob {
  SectorMode mode;
  bool encrypts;
  /** 16, 24 or 32 bytes; two such keys for XTS. */
  const uint8_t* key;
  size_t key_bytes;
  uint8_t* data;
  size_t data_bytes;
  /** 16 bytes for each sector; XTS encrypts them first. Not looked at in ECB. */
  const uint8_t* vectors;
  size_t sector_bytes;
};

/** 0, or minus ENOTSUP where the processor has no such instructions. */
int CryptSectors(const SectorJob& job);

}  // namespace blockwright

#endif
