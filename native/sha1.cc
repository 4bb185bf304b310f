// SPDX-License-Identifier: Apache-2.0
// SHA-1 (FIPS 180-4) by SHA-NI, for PBKDF2: two blocks of the key side by side.

#include "pbkdf2.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define DIGEST_TARGET __attribute__((target("sha,sse4.1,ssse3")))

#include "pbkdf2-template.h"

namespace blockwright {
namespace {

const size_t kPhases = 4;
const size_t kGroupsPerPhase = 5;

/** Five words as the instructions want them, the first in the highest lane; E is alone in its. */
struct State1 {
  __m128i abcd;
  __m128i e;
};

/** What goes on beside a state: the words of the message and A to D of a group of rounds ago. */
struct Lane {
  State1 state;
  __m128i before;
  __m128i words[4];
};

DIGEST_TARGET inline __m128i FourRounds(__m128i abcd, __m128i added, size_t phase) {
  switch (phase) {
    case 0: return _mm_sha1rnds4_epu32(abcd, added, 0);
    case 1: return _mm_sha1rnds4_epu32(abcd, added, 1);
    case 2: return _mm_sha1rnds4_epu32(abcd, added, 2);
    default: return _mm_sha1rnds4_epu32(abcd, added, 3);
  }
}

DIGEST_TARGET inline void Group(Lane* lane, size_t phase, size_t group) {
  __m128i* words = lane->words;
  __m128i* word = words + group % 4;
  if (group >= 4) {
    __m128i mixed = _mm_xor_si128(_mm_sha1msg1_epu32(*word, words[(group + 1) % 4]),
                                  words[(group + 2) % 4]);
    *word = _mm_sha1msg2_epu32(mixed, words[(group + 3) % 4]);
  }
  __m128i added = group == 0 ? _mm_add_epi32(lane->state.e, *word)
                             : _mm_sha1nexte_epu32(lane->before, *word);
  lane->before = lane->state.abcd;
  lane->state.abcd = FourRounds(lane->state.abcd, added, phase);
}

/** One block of message, which is lost, into each state. */
template <size_t kLanes>
DIGEST_TARGET inline void Compress(Lane* lanes) {
  State1 begin[kLanes];
  for (size_t lane = 0; lane < kLanes; lane += 1) begin[lane] = lanes[lane].state;
#pragma GCC unroll 4
  for (size_t phase = 0; phase < kPhases; phase += 1) {
#pragma GCC unroll 5
    for (size_t step = 0; step < kGroupsPerPhase; step += 1) {
#pragma GCC unroll 2
      for (size_t lane = 0; lane < kLanes; lane += 1) {
        Group(lanes + lane, phase, phase * kGroupsPerPhase + step);
      }
    }
  }
  for (size_t lane = 0; lane < kLanes; lane += 1) {
    State1& state = lanes[lane].state;
    state.e = _mm_sha1nexte_epu32(lanes[lane].before, begin[lane].e);
    state.abcd = _mm_add_epi32(state.abcd, begin[lane].abcd);
  }
}

struct Sha1 {
  using State = State1;
  using Words = State1;
  static const size_t kBlock = 64;
  static const size_t kDigest = 20;
  static const size_t kStateBytes = 32;
  static const size_t kLengthBytes = 8;
  static const bool kIsLittleEndian = false;
  static const size_t kLanes = 2;

  DIGEST_TARGET static State Initial() {
    return {_mm_set_epi32(0x67452301, static_cast<int>(0xefcdab89), static_cast<int>(0x98badcfe),
                          0x10325476),
            _mm_set_epi32(static_cast<int>(0xc3d2e1f0), 0, 0, 0)};
  }

  DIGEST_TARGET static __m128i Swapped(__m128i words) {
    return _mm_shuffle_epi8(words, _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f));
  }

  DIGEST_TARGET static void CompressBytes(State* state, const uint8_t* block) {
    Lane lane;
    lane.state = *state;
    for (size_t part = 0; part < 4; part += 1) {
      lane.words[part] =
          Swapped(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + part * 16)));
    }
    Compress<1>(&lane);
    *state = lane.state;
  }

  DIGEST_TARGET static Words WordsOf(State state) { return state; }

  DIGEST_TARGET static Words Xor(Words left, Words right) {
    return {_mm_xor_si128(left.abcd, right.abcd), _mm_xor_si128(left.e, right.e)};
  }

  DIGEST_TARGET static void Store(Words words, uint8_t* digest) {
    __m128i* to = reinterpret_cast<__m128i*>(digest);
    _mm_storeu_si128(to, Swapped(words.abcd));
    _mm_storeu_si128(to + 1, Swapped(words.e));
  }

  template <size_t kLanes>
  DIGEST_TARGET static inline void KeyedDigests(const Keyed<Sha1>& keyed, Words* digests) {
    const __m128i mark = _mm_set_epi32(0, static_cast<int>(0x80000000), 0, 0);
    const __m128i bits = _mm_cvtsi32_si128((kBlock + kDigest) * 8);
    const State* keys[2] = {&keyed.inner, &keyed.outer};
#pragma GCC unroll 2
    for (size_t side = 0; side < 2; side += 1) {
      Lane lanes[kLanes];
      for (size_t lane = 0; lane < kLanes; lane += 1) {
        lanes[lane].state = *keys[side];
        lanes[lane].words[0] = digests[lane].abcd;
        lanes[lane].words[1] = _mm_or_si128(digests[lane].e, mark);
        lanes[lane].words[2] = _mm_setzero_si128();
        lanes[lane].words[3] = bits;
      }
      Compress<kLanes>(lanes);
      for (size_t lane = 0; lane < kLanes; lane += 1) digests[lane] = lanes[lane].state;
    }
  }
};

}  // namespace

const Deriver* Sha1Deriver() {
  static const Deriver kDeriver = {Derive<Sha1>, Mix<Sha1>};
  return HasShaInstructions() ? &kDeriver : nullptr;
}

}  // namespace blockwright

#else

namespace blockwright {

const Deriver* Sha1Deriver() { return nullptr; }

}  // namespace blockwright

#endif
