// SPDX-License-Identifier: Apache-2.0
// PBKDF2 (RFC 8018, section 5.2) with HMAC (RFC 2104), whatever the digest.
//
// Included by the file of a digest, once DIGEST_TARGET names the instructions that it may use:
// what is here must be compiled for the same ones. What HMAC does with the password alone is done
// once, and Hash::kLanes blocks of the key go through the processor side by side: a round waits for
// the one before, and blocks do not depend on each other.
//
// A Hash has kBlock, kDigest and kStateBytes (of which a digest is the beginning), kLengthBytes (of
// the message's length in its last block), kIsLittleEndian (of that length), a State with Initial()
// and CompressBytes(), the Words of a digest with WordsOf(), Xor() and Store(), and KeyedDigests():
// HMAC of digests themselves.

#include <string.h>

#include "pbkdf2.h"

namespace blockwright {
namespace {

const uint32_t kIterationsPerLook = 4096;

/** HMAC with the password's block taken in already. */
template <class Hash>
struct Keyed {
  typename Hash::State inner;
  typename Hash::State outer;
};

/** The end of a message of `total` bytes, of which `rest` are left over. */
template <class Hash>
DIGEST_TARGET void Finish(typename Hash::State* state, Bytes rest, uint64_t total) {
  uint8_t padded[2 * Hash::kBlock] = {};
  if (rest.length > 0) memcpy(padded, rest.at, rest.length);
  padded[rest.length] = 0x80;
  bool fits = rest.length + 1 + Hash::kLengthBytes <= Hash::kBlock;
  size_t end = fits ? Hash::kBlock : 2 * Hash::kBlock;
  for (size_t at = 0; at < 8; at += 1) {
    size_t place = Hash::kIsLittleEndian ? end - 8 + at : end - 1 - at;
    padded[place] = static_cast<uint8_t>((total * 8) >> (8 * at));
  }
  Hash::CompressBytes(state, padded);
  if (!fits) Hash::CompressBytes(state, padded + Hash::kBlock);
  explicit_bzero(padded, sizeof padded);
}

/** `state` has taken in `before` bytes. */
template <class Hash>
DIGEST_TARGET typename Hash::Words Digest(typename Hash::State state, Bytes message,
                                          uint64_t before) {
  size_t at = 0;
  for (; message.length - at >= Hash::kBlock; at += Hash::kBlock) {
    Hash::CompressBytes(&state, message.at + at);
  }
  Finish<Hash>(&state, {message.at + at, message.length - at}, before + message.length);
  return Hash::WordsOf(state);
}

template <class Hash>
DIGEST_TARGET Keyed<Hash> KeyOf(Bytes password) {
  static_assert(Hash::kStateBytes <= Hash::kBlock, "a digest is a password");
  uint8_t block[Hash::kBlock] = {};
  if (password.length > Hash::kBlock) {
    Hash::Store(Digest<Hash>(Hash::Initial(), password, 0), block);
    memset(block + Hash::kDigest, 0, Hash::kBlock - Hash::kDigest);
  } else if (password.length > 0) {
    memcpy(block, password.at, password.length);
  }
  Keyed<Hash> keyed = {Hash::Initial(), Hash::Initial()};
  for (size_t at = 0; at < Hash::kBlock; at += 1) block[at] ^= 0x36;
  Hash::CompressBytes(&keyed.inner, block);
  for (size_t at = 0; at < Hash::kBlock; at += 1) block[at] ^= 0x36 ^ 0x5c;
  Hash::CompressBytes(&keyed.outer, block);
  explicit_bzero(block, sizeof block);
  return keyed;
}

template <class Hash>
DIGEST_TARGET typename Hash::Words FirstDigest(const Keyed<Hash>& keyed, Bytes salt,
                                               uint32_t number) {
  typename Hash::State state = keyed.inner;
  size_t at = 0;
  for (; salt.length - at >= Hash::kBlock; at += Hash::kBlock) {
    Hash::CompressBytes(&state, salt.at + at);
  }
  uint8_t tail[Hash::kBlock + 4];
  size_t rest = salt.length - at;
  if (rest > 0) memcpy(tail, salt.at + at, rest);
  for (size_t byte = 0; byte < 4; byte += 1) {
    tail[rest + byte] = static_cast<uint8_t>(number >> (24 - 8 * byte));
  }
  uint8_t inner[Hash::kStateBytes];
  Hash::Store(Digest<Hash>(state, {tail, rest + 4}, Hash::kBlock + at), inner);
  return Digest<Hash>(keyed.outer, {inner, Hash::kDigest}, Hash::kBlock);
}

/** `kLanes` blocks of the key, from block `number` (counted from 1) on. */
template <class Hash, size_t kLanes>
DIGEST_TARGET bool DeriveBlocks(const Keyed<Hash>& keyed, Bytes salt, uint32_t iterations,
                                const volatile int32_t* cancel, uint32_t number, uint8_t* blocks) {
  typename Hash::Words last[kLanes];
  typename Hash::Words sums[kLanes];
  for (size_t lane = 0; lane < kLanes; lane += 1) {
    last[lane] = FirstDigest<Hash>(keyed, salt, number + static_cast<uint32_t>(lane));
    sums[lane] = last[lane];
  }
  for (uint32_t done = 1; done < iterations; done += 1) {
    if (done % kIterationsPerLook == 0 && *cancel != 0) return false;
    Hash::template KeyedDigests<kLanes>(keyed, last);
    for (size_t lane = 0; lane < kLanes; lane += 1) {
      sums[lane] = Hash::Xor(sums[lane], last[lane]);
    }
  }
  uint8_t digest[Hash::kStateBytes];
  for (size_t lane = 0; lane < kLanes; lane += 1) {
    Hash::Store(sums[lane], digest);
    memcpy(blocks + lane * Hash::kDigest, digest, Hash::kDigest);
  }
  explicit_bzero(digest, sizeof digest);
  explicit_bzero(last, sizeof last);
  explicit_bzero(sums, sizeof sums);
  return true;
}

template <class Hash>
DIGEST_TARGET bool Derive(Bytes password, Bytes salt, uint32_t iterations,
                          const volatile int32_t* cancel, uint8_t* key, size_t key_bytes) {
  Keyed<Hash> keyed = KeyOf<Hash>(password);
  uint8_t blocks[Hash::kLanes * Hash::kDigest];
  uint32_t number = 1;
  bool whole = *cancel == 0;
  for (size_t at = 0; whole && at < key_bytes; at += sizeof blocks, number += Hash::kLanes) {
    size_t count = key_bytes - at < sizeof blocks ? key_bytes - at : sizeof blocks;
    whole = count > Hash::kDigest ? DeriveBlocks<Hash, Hash::kLanes>(keyed, salt, iterations,
                                                                     cancel, number, blocks)
                                  : DeriveBlocks<Hash, 1>(keyed, salt, iterations, cancel, number,
                                                          blocks);
    if (whole) memcpy(key + at, blocks, count);
  }
  explicit_bzero(blocks, sizeof blocks);
  explicit_bzero(&keyed, sizeof keyed);
  return whole;
}

template <class Hash>
DIGEST_TARGET void Mix(Bytes stripes, uint8_t* block, size_t block_bytes) {
  uint8_t message[4 + Hash::kDigest];
  uint8_t digest[Hash::kStateBytes];
  for (size_t start = 0; start < stripes.length; start += block_bytes) {
    for (size_t at = 0; at < block_bytes; at += 1) block[at] ^= stripes.at[start + at];
    for (size_t at = 0; at < block_bytes; at += Hash::kDigest) {
      size_t length = block_bytes - at < Hash::kDigest ? block_bytes - at : Hash::kDigest;
      uint32_t number = static_cast<uint32_t>(at / Hash::kDigest);
      for (size_t byte = 0; byte < 4; byte += 1) {
        message[byte] = static_cast<uint8_t>(number >> (24 - 8 * byte));
      }
      memcpy(message + 4, block + at, length);
      Hash::Store(Digest<Hash>(Hash::Initial(), {message, 4 + length}, 0), digest);
      memcpy(block + at, digest, length);
    }
  }
  explicit_bzero(message, sizeof message);
  explicit_bzero(digest, sizeof digest);
}

}  // namespace
}  // namespace blockwright
