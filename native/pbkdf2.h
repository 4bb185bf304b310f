// SPDX-License-Identifier: Apache-2.0
// Keys from passwords by PBKDF2 with HMAC-SHA-256, two blocks of the key at a time.

#ifndef BLOCKWRIGHT_PBKDF2_H
#define BLOCKWRIGHT_PBKDF2_H

#include <stddef.h>
#include <stdint.h>

namespace blockwright {

struct Bytes {
  const uint8_t* at;
  size_t length;
};

/** Whether the processor has instructions for SHA-256. */
bool CanDerive();

/**
 * Fills the key; false when `cancel` was not 0 at some time, with the key of no use then. `cancel`
 * is looked at some hundred times a second.
 */
bool DeriveSha256(Bytes password, Bytes salt, uint32_t iterations, const int32_t* cancel,
                  uint8_t* key, size_t key_bytes);

/**
 * The diffusion of the anti-forensic splitter: for each stripe, `block` is XORed with it, then each
 * of its pieces of 32 bytes replaced by the digest of its number and itself.
 */
void MixSha256(Bytes stripes, uint8_t* block, size_t block_bytes);

}  // namespace blockwright

#endif
