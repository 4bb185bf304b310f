// SPDX-License-Identifier: Apache-2.0
// SHA-256 and SHA-224 (FIPS 180-4) by SHA-NI, for PBKDF2.
//
// A round of SHA-NI waits for the one before: two blocks of the key go through the processor side
// by side, in the time of one and a bit.

#include "pbkdf2.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define DIGEST_TARGET __attribute__((target("sha,sse4.1,ssse3")))

#include "pbkdf2-template.h"

namespace blockwright {
namespace {

const size_t kGroups = 16;

alignas(16) const uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

alignas(16) const uint32_t kInitial224[8] = {0xc1059ed8, 0x367cd507, 0x3070dd17, 0xf70e5939,
                                             0xffc00b31, 0x68581511, 0x64f98fa7, 0xbefa4fa4};
alignas(16) const uint32_t kInitial256[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                             0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/** Eight words as the instructions want them: F E B A and H G D C, from the lowest lane up. */
struct State256 {
  __m128i feba;
  __m128i hgdc;
};

/** The words of a digest, four to a register. */
struct Words256 {
  __m128i low;
  __m128i high;
};

DIGEST_TARGET inline State256 StateOf(Words256 words) {
  State256 state;
  state.feba = _mm_shuffle_epi32(_mm_unpacklo_epi64(words.low, words.high), 0x1b);
  state.hgdc = _mm_shuffle_epi32(_mm_unpackhi_epi64(words.low, words.high), 0x1b);
  return state;
}

DIGEST_TARGET inline Words256 WordsOf(State256 state) {
  __m128i left = _mm_shuffle_epi32(state.feba, 0x1b);
  __m128i right = _mm_shuffle_epi32(state.hgdc, 0x1b);
  return {_mm_unpacklo_epi64(left, right), _mm_unpackhi_epi64(left, right)};
}

/** One block of message into each state; `messages` are lost. */
template <size_t kLanes>
DIGEST_TARGET inline void Compress(State256* states, __m128i (*messages)[4]) {
  State256 before[kLanes];
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
      State256& state = states[lane];
      state.hgdc = _mm_sha256rnds2_epu32(state.hgdc, state.feba, sum);
      state.feba = _mm_sha256rnds2_epu32(state.feba, state.hgdc, _mm_shuffle_epi32(sum, 0x0e));
    }
  }
  for (size_t lane = 0; lane < kLanes; lane += 1) {
    states[lane].feba = _mm_add_epi32(states[lane].feba, before[lane].feba);
    states[lane].hgdc = _mm_add_epi32(states[lane].hgdc, before[lane].hgdc);
  }
}

DIGEST_TARGET inline __m128i SwapMask() {
  return _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
}

template <size_t kDigestBytes>
struct Sha256 {
  using State = State256;
  using Words = Words256;
  static const size_t kBlock = 64;
  static const size_t kDigest = kDigestBytes;
  static const size_t kStateBytes = 32;
  static const size_t kLengthBytes = 8;
  static const bool kIsLittleEndian = false;
  static const size_t kLanes = 2;

  DIGEST_TARGET static State Initial() {
    const uint32_t* words = kDigest == kStateBytes ? kInitial256 : kInitial224;
    return StateOf({_mm_load_si128(reinterpret_cast<const __m128i*>(words)),
                    _mm_load_si128(reinterpret_cast<const __m128i*>(words + 4))});
  }

  DIGEST_TARGET static void CompressBytes(State* state, const uint8_t* block) {
    __m128i message[1][4];
    for (size_t part = 0; part < 4; part += 1) {
      __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + part * 16));
      message[0][part] = _mm_shuffle_epi8(loaded, SwapMask());
    }
    Compress<1>(state, message);
  }

  DIGEST_TARGET static Words WordsOf(State state) { return blockwright::WordsOf(state); }

  DIGEST_TARGET static Words Xor(Words left, Words right) {
    return {_mm_xor_si128(left.low, right.low), _mm_xor_si128(left.high, right.high)};
  }

  DIGEST_TARGET static void Store(Words words, uint8_t* digest) {
    __m128i* to = reinterpret_cast<__m128i*>(digest);
    _mm_storeu_si128(to, _mm_shuffle_epi8(words.low, SwapMask()));
    _mm_storeu_si128(to + 1, _mm_shuffle_epi8(words.high, SwapMask()));
  }

  template <size_t kLanes>
  DIGEST_TARGET static inline void KeyedDigests(const Keyed<Sha256>& keyed, Words* digests) {
    const __m128i mark = _mm_cvtsi32_si128(static_cast<int>(0x80000000));
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
        messages[lane][2] = mark;
        messages[lane][3] = bits;
        if (kDigest == kStateBytes) continue;
        // The eighth word is no part of a digest of SHA-224.
        messages[lane][1] = _mm_blend_epi16(digests[lane].high, _mm_slli_si128(mark, 12), 0xc0);
        messages[lane][2] = _mm_setzero_si128();
      }
      Compress<kLanes>(states, messages);
      for (size_t lane = 0; lane < kLanes; lane += 1) {
        digests[lane] = WordsOf(states[lane]);
      }
    }
  }
};

}  // namespace

const Deriver* Sha224Deriver() {
  static const Deriver kDeriver = {Derive<Sha256<28>>, Mix<Sha256<28>>};
  return HasShaInstructions() ? &kDeriver : nullptr;
}

const Deriver* Sha256Deriver() {
  static const Deriver kDeriver = {Derive<Sha256<32>>, Mix<Sha256<32>>};
  return HasShaInstructions() ? &kDeriver : nullptr;
}

}  // namespace blockwright

#else

namespace blockwright {

const Deriver* Sha224Deriver() { return nullptr; }
const Deriver* Sha256Deriver() { return nullptr; }

}  // namespace blockwright

#endif
