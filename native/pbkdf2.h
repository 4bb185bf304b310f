// SPDX-License-Identifier: Apache-2.0
// Keys from passwords by PBKDF2 with HMAC, and the diffusion of the anti-forensic splitter, for the
// digests and processors that they are written for.

#ifndef BLOCKWRIGHT_PBKDF2_H
#define BLOCKWRIGHT_PBKDF2_H

#include <stddef.h>
#include <stdint.h>

namespace blockwright {

struct Bytes {
  const uint8_t* at;
  size_t length;
};

/** What one digest can do on this processor. */
struct Deriver {
  /**
   * Fills the key; false when `cancel` was not 0 at some time, with the key of no use then.
   * `cancel` is looked at some hundred times a second.
   */
  bool (*derive)(Bytes password, Bytes salt, uint32_t iterations, const volatile int32_t* cancel,
                 uint8_t* key, size_t key_bytes);
  /**
   * For each stripe, `block` is XORed with it, then each of its pieces as long as a digest replaced
   * by the digest of its number and itself, the last piece cut short.
   */
  void (*mix)(Bytes stripes, uint8_t* block, size_t block_bytes);
};

/** Null where the processor lacks the instructions, but for the last, which needs none. */
const Deriver* Sha1Deriver();
const Deriver* Sha224Deriver();
const Deriver* Sha256Deriver();
const Deriver* Sha384Deriver();
const Deriver* Sha512Deriver();
const Deriver* Ripemd160Deriver();

/** The same by name (`sha256`); null for other digests too. */
const Deriver* DeriverOf(const char* digest);

/** Whether the processor has SHA-NI, of which the compiler's own tests do not know. */
bool HasShaInstructions();

}  // namespace blockwright

#endif
