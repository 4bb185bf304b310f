// SPDX-License-Identifier: Apache-2.0
// PBKDF2 (RFC 8018, section 5.2) with HMAC-SHA-256 (RFC 2104, FIPS 180-4), by SHA-NI.
//
// A round of SHA-NI waits for the one before, and blocks of the key do not depend on each other:
// two of them go through the processor side by side, in the time of one and a bit. What HMAC does
// with the password alone is done once.

#include "pbkdf2.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace blockwright {

#if defined(__x86_64__)

#define SHA_TARGET __attribute__((target("sha,sse4.1,ssse3")))

namespace {

const size_t kBlock = 64;
const size_t kDigest = 32;
const size_t kGroups = 16;
const uint32_t kIterationsPerLook = 4096;

alignas(16) const uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

const uint32_t kInitial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/** Eight words as the instructions want them: F E B A and H G D C, from the lowest lane up. */
struct State {
  __m128i feba;
  __m128i hgdc;
};

/** The words of a digest, four to a register. */
struct Words {
  __m128i low;
  __m128i high;
};

SHA_TARGET inline State StateOf(Words words) {
  State state;
  state.feba = _mm_shuffle_epi32(_mm_unpacklo_epi64(words.low, words.high), 0x1b);
  state.hgdc = _mm_shuffle_epi32(_mm_unpackhi_epi64(words.low, words.high), 0x1b);
  return state;
}

SHA_TARGET inline Words WordsOf(State state) {
  __m128i left = _mm_shuffle_epi32(state.feba, 0x1b);
  __m128i right = _mm_shuffle_epi32(state.hgdc, 0x1b);
  return {_mm_unpacklo_epi64(left, right), _mm_unpackhi_epi64(left, right)};
}

/** One block of message into each state; `messages` are lost. */
template <size_t kLanes>
SHA_TARGET inline void Compress(State* states, __m128i (*messages)[4]) {
  State before[kLanes];
  for (size_t lane = 0; lane < kLanes; lane += 1) before[lane] = states[lane];
#pragma GCC unroll 16
  for (size_t group = 0; group < kGroups; group += 1) {
    __m128i constants = _mm_load_si128(reinterpret_cast<const __m128i*>(kRounds + group * 4));
#pragma GCC unroll 2
    for (size_t lane = 0; lane < kLanes; lane += 1) {
      __m128i* words = messages[lane];
      if (group >= 4) {
        __m128i first = _mm_sha256msg1_epu32(words[group % 4], words[(group + 1) % 4]);
        __m128i middle = _mm_alignr_epi8(words[(group + 3) % 4], words[(group + 2) % 4], 4);
        words[group % 4] = _mm_sha256msg2_epu32(_mm_add_epi32(first, middle),
                                                words[(group + 3) % 4]);
      }
      __m128i sum = _mm_add_epi32(words[group % 4], constants);
      State& state = states[lane];
      state.hgdc = _mm_sha256rnds2_epu32(state.hgdc, state.feba, sum);
      state.feba = _mm_sha256rnds2_epu32(state.feba, state.hgdc, _mm_shuffle_epi32(sum, 0x0e));
    }
  }
  for (size_t lane = 0; lane < kLanes; lane += 1) {
    states[lane].feba = _mm_add_epi32(states[lane].feba, before[lane].feba);
    states[lane].hgdc = _mm_add_epi32(states[lane].hgdc, before[lane].hgdc);
  }
}

SHA_TARGET State InitialState() {
  return StateOf({_mm_loadu_si128(reinterpret_cast<const __m128i*>(kInitial)),
                  _mm_loadu_si128(reinterpret_cast<const __m128i*>(kInitial + 4))});
}

SHA_TARGET inline __m128i SwapMask() {
  return _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
}

SHA_TARGET void CompressBytes(State* state, const uint8_t* block) {
  __m128i message[1][4];
  for (size_t part = 0; part < 4; part += 1) {
    __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + part * 16));
    message[0][part] = _mm_shuffle_epi8(loaded, SwapMask());
  }
  Compress<1>(state, message);
}

/** The end of a message of `total` bytes, of which `rest` are left over. */
SHA_TARGET void Finish(State* state, const uint8_t* bytes, size_t rest, uint64_t total) {
  uint8_t padded[2 * kBlock] = {};
  memcpy(padded, bytes, rest);
  padded[rest] = 0x80;
  size_t end = rest + 9 <= kBlock ? kBlock : 2 * kBlock;
  for (size_t at = 0; at < 8; at += 1) {
    padded[end - 1 - at] = static_cast<uint8_t>((total * 8) >> (8 * at));
  }
  CompressBytes(state, padded);
  if (end > kBlock) CompressBytes(state, padded + kBlock);
  explicit_bzero(padded, sizeof padded);
}

SHA_TARGET void StoreWords(Words words, uint8_t* digest) {
  __m128i* to = reinterpret_cast<__m128i*>(digest);
  _mm_storeu_si128(to, _mm_shuffle_epi8(words.low, SwapMask()));
  _mm_storeu_si128(to + 1, _mm_shuffle_epi8(words.high, SwapMask()));
}

/** `state` has taken in `before` bytes. */
SHA_TARGET Words Digest(State state, Bytes message, uint64_t before) {
  size_t at = 0;
  for (; message.length - at >= kBlock; at += kBlock) CompressBytes(&state, message.at + at);
  Finish(&state, message.at + at, message.length - at, before + message.length);
  return WordsOf(state);
}

/** HMAC with the password's block taken in already. */
struct Keyed {
  State inner;
  State outer;
};

SHA_TARGET Keyed KeyOf(Bytes password) {
  uint8_t block[kBlock] = {};
  if (password.length > kBlock) StoreWords(Digest(InitialState(), password, 0), block);
  else if (password.length > 0) memcpy(block, password.at, password.length);
  Keyed keyed = {InitialState(), InitialState()};
  for (size_t at = 0; at < kBlock; at += 1) block[at] ^= 0x36;
  CompressBytes(&keyed.inner, block);
  for (size_t at = 0; at < kBlock; at += 1) block[at] ^= 0x36 ^ 0x5c;
  CompressBytes(&keyed.outer, block);
  explicit_bzero(block, sizeof block);
  return keyed;
}

/** HMAC of messages that are digests themselves. */
template <size_t kLanes>
SHA_TARGET inline void KeyedDigests(const Keyed& keyed, Words* digests) {
  const __m128i end = _mm_set_epi32(0, 0, 0, static_cast<int>(0x80000000));
  const __m128i bits = _mm_set_epi32(static_cast<int>((kBlock + kDigest) * 8), 0, 0, 0);
  const State* keys[2] = {&keyed.inner, &keyed.outer};
#pragma GCC unroll 2
  for (size_t side = 0; side < 2; side += 1) {
    State states[kLanes];
    __m128i messages[kLanes][4];
    for (size_t lane = 0; lane < kLanes; lane += 1) {
      states[lane] = *keys[side];
      messages[lane][0] = digests[lane].low;
      messages[lane][1] = digests[lane].high;
      messages[lane][2] = end;
      messages[lane][3] = bits;
    }
    Compress<kLanes>(states, messages);
    for (size_t lane = 0; lane < kLanes; lane += 1) digests[lane] = WordsOf(states[lane]);
  }
}

SHA_TARGET Words FirstDigest(const Keyed& keyed, Bytes salt, uint32_t number) {
  State state = keyed.inner;
  size_t at = 0;
  for (; salt.length - at >= kBlock; at += kBlock) CompressBytes(&state, salt.at + at);
  uint8_t tail[kBlock + 4];
  size_t rest = salt.length - at;
  memcpy(tail, salt.at + at, rest);
  for (size_t byte = 0; byte < 4; byte += 1) {
    tail[rest + byte] = static_cast<uint8_t>(number >> (24 - 8 * byte));
  }
  uint8_t inner[kDigest];
  StoreWords(Digest(state, {tail, rest + 4}, kBlock + at), inner);
  return Digest(keyed.outer, {inner, kDigest}, kBlock);
}

/** Another thread sets it. */
bool IsCancelled(const int32_t* cancel) { return __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0; }

/** `kLanes` blocks of the key, from block `number` (counted from 1) on. */
template <size_t kLanes>
SHA_TARGET bool DeriveBlocks(const Keyed& keyed, Bytes salt, uint32_t iterations,
                             const int32_t* cancel, uint32_t number, uint8_t* blocks) {
  Words last[kLanes];
  Words sums[kLanes];
  for (size_t lane = 0; lane < kLanes; lane += 1) {
    last[lane] = FirstDigest(keyed, salt, number + static_cast<uint32_t>(lane));
    sums[lane] = last[lane];
  }
  for (uint32_t done = 1; done < iterations; done += 1) {
    if (done % kIterationsPerLook == 0 && IsCancelled(cancel)) return false;
    KeyedDigests<kLanes>(keyed, last);
    for (size_t lane = 0; lane < kLanes; lane += 1) {
      sums[lane].low = _mm_xor_si128(sums[lane].low, last[lane].low);
      sums[lane].high = _mm_xor_si128(sums[lane].high, last[lane].high);
    }
  }
  for (size_t lane = 0; lane < kLanes; lane += 1) StoreWords(sums[lane], blocks + lane * kDigest);
  return true;
}

/** What the steps of a derivation left on the stack, which is below that of their caller. */
__attribute__((noinline)) void WipeStack() {
  uint8_t spent[4096];
  explicit_bzero(spent, sizeof spent);
}

}  // namespace

bool CanDerive() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (ebx & (1u << 29)) != 0 && __builtin_cpu_supports("sse4.1");
}

bool DeriveSha256(Bytes password, Bytes salt, uint32_t iterations, const int32_t* cancel,
                  uint8_t* key, size_t key_bytes) {
  Keyed keyed = KeyOf(password);
  uint8_t blocks[2 * kDigest];
  uint32_t number = 1;
  bool whole = !IsCancelled(cancel);
  for (size_t at = 0; whole && at < key_bytes; at += sizeof blocks, number += 2) {
    size_t count = key_bytes - at < sizeof blocks ? key_bytes - at : sizeof blocks;
    whole = count > kDigest
                ? DeriveBlocks<2>(keyed, salt, iterations, cancel, number, blocks)
                : DeriveBlocks<1>(keyed, salt, iterations, cancel, number, blocks);
    if (whole) memcpy(key + at, blocks, count);
  }
  explicit_bzero(blocks, sizeof blocks);
  explicit_bzero(&keyed, sizeof keyed);
  WipeStack();
  return whole;
}

SHA_TARGET void MixSha256(Bytes stripes, uint8_t* block, size_t block_bytes) {
  uint8_t message[4 + kDigest];
  uint8_t digest[kDigest];
  for (size_t start = 0; start < stripes.length; start += block_bytes) {
    for (size_t at = 0; at < block_bytes; at += 1) block[at] ^= stripes.at[start + at];
    for (size_t at = 0; at < block_bytes; at += kDigest) {
      size_t length = block_bytes - at < kDigest ? block_bytes - at : kDigest;
      uint32_t number = static_cast<uint32_t>(at / kDigest);
      for (size_t byte = 0; byte < 4; byte += 1) {
        message[byte] = static_cast<uint8_t>(number >> (24 - 8 * byte));
      }
      memcpy(message + 4, block + at, length);
      StoreWords(Digest(InitialState(), {message, 4 + length}, 0), digest);
      memcpy(block + at, digest, length);
    }
  }
  explicit_bzero(message, sizeof message);
  explicit_bzero(digest, sizeof digest);
  WipeStack();
}

#else

bool CanDerive() { return false; }

void MixSha256(Bytes, uint8_t*, size_t) {}

bool DeriveSha256(Bytes, Bytes, uint32_t, const int32_t*, uint8_t*, size_t) {
  return false;
}

#endif

}  // namespace blockwright
