// SPDX-License-Identifier: Apache-2.0
// SHA-512 and SHA-384 (FIPS 180-4) for PBKDF2, where the processor has AVX2 and BMI2.
//
// A key of a keyslot is one block of SHA-512, and its rounds wait for each other: the words of the
// message are made two at a time by the vector units, beside the rounds.

#include "pbkdf2.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define DIGEST_TARGET __attribute__((target("avx2,bmi,bmi2")))

#include "pbkdf2-template.h"

namespace blockwright {
namespace {

const size_t kRoundCount = 80;

alignas(16) const uint64_t kRounds[kRoundCount] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817};

alignas(16) const uint64_t kInitial384[8] = {
    0xcbbb9d5dc1059ed8, 0x629a292a367cd507, 0x9159015a3070dd17, 0x152fecd8f70e5939,
    0x67332667ffc00b31, 0x8eb44a8768581511, 0xdb0c2e0d64f98fa7, 0x47b5481dbefa4fa4};
alignas(16) const uint64_t kInitial512[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

struct State512 {
  uint64_t words[8];
};

template <int kBits>
DIGEST_TARGET inline uint64_t Rotated(uint64_t word) {
  return (word >> kBits) | (word << (64 - kBits));
}

template <int kBits>
DIGEST_TARGET inline __m128i RotatedPair(__m128i pair) {
  return _mm_or_si128(_mm_srli_epi64(pair, kBits), _mm_slli_epi64(pair, 64 - kBits));
}

/** What two words add to those that come 15 words later. */
DIGEST_TARGET inline __m128i SmallSigma0(__m128i pair) {
  return _mm_xor_si128(_mm_xor_si128(RotatedPair<1>(pair), RotatedPair<8>(pair)),
                       _mm_srli_epi64(pair, 7));
}

/** And to those that come two words later. */
DIGEST_TARGET inline __m128i SmallSigma1(__m128i pair) {
  return _mm_xor_si128(_mm_xor_si128(RotatedPair<19>(pair), RotatedPair<61>(pair)),
                       _mm_srli_epi64(pair, 6));
}

/** The next two words of the message, in place of those 16 words before. */
DIGEST_TARGET inline void NextPair(__m128i* pairs, size_t pair) {
  __m128i fifteen = _mm_alignr_epi8(pairs[(pair + 1) % 8], pairs[pair], 8);
  __m128i seven = _mm_alignr_epi8(pairs[(pair + 5) % 8], pairs[(pair + 4) % 8], 8);
  __m128i sum = _mm_add_epi64(_mm_add_epi64(pairs[pair], seven), SmallSigma0(fifteen));
  pairs[pair] = _mm_add_epi64(sum, SmallSigma1(pairs[(pair + 7) % 8]));
}

/** The eight words between two rounds, and the second XOR the third of them. */
struct Rounds {
  uint64_t words[8];
  uint64_t differing;
};

/** One round; `at` says which of the eight words is the first now. */
DIGEST_TARGET inline void Round(Rounds* rounds, size_t at, uint64_t added) {
  uint64_t* words = rounds->words;
  uint64_t a = words[(0 + at) % 8], b = words[(1 + at) % 8];
  uint64_t e = words[(4 + at) % 8], f = words[(5 + at) % 8], g = words[(6 + at) % 8];
  uint64_t& d = words[(3 + at) % 8];
  uint64_t& h = words[(7 + at) % 8];
  uint64_t differing = a ^ b;
  uint64_t sum = h + added + ((e & f) + (~e & g));
  sum += Rotated<14>(e) ^ Rotated<18>(e) ^ Rotated<41>(e);
  d += sum;
  h = sum + (b ^ (differing & rounds->differing));
  h += Rotated<28>(a) ^ Rotated<34>(a) ^ Rotated<39>(a);
  rounds->differing = differing;
}

/** One block of message into the state. */
DIGEST_TARGET inline void Compress(State512* state, const __m128i* message) {
  alignas(16) uint64_t added[16];
  __m128i pairs[8];
  const __m128i* constants = reinterpret_cast<const __m128i*>(kRounds);
  Rounds rounds;
  memcpy(rounds.words, state->words, sizeof rounds.words);
  rounds.differing = rounds.words[1] ^ rounds.words[2];
#pragma GCC unroll 8
  for (size_t pair = 0; pair < 8; pair += 1) {
    pairs[pair] = message[pair];
    _mm_store_si128(reinterpret_cast<__m128i*>(added) + pair,
                    _mm_add_epi64(pairs[pair], constants[pair]));
  }
  for (size_t begin = 16; begin < kRoundCount; begin += 16) {
#pragma GCC unroll 8
    for (size_t pair = 0; pair < 8; pair += 1) {
      Round(&rounds, (16 - 2 * pair) % 8, added[2 * pair]);
      Round(&rounds, (15 - 2 * pair) % 8, added[2 * pair + 1]);
      NextPair(pairs, pair);
      _mm_store_si128(reinterpret_cast<__m128i*>(added) + pair,
                      _mm_add_epi64(pairs[pair], constants[begin / 2 + pair]));
    }
  }
#pragma GCC unroll 16
  for (size_t round = 0; round < 16; round += 1) Round(&rounds, (16 - round) % 8, added[round]);
  for (size_t word = 0; word < 8; word += 1) state->words[word] += rounds.words[word];
}

template <size_t kDigestBytes>
struct Sha512 {
  using State = State512;
  using Words = State512;
  static const size_t kBlock = 128;
  static const size_t kDigest = kDigestBytes;
  static const size_t kStateBytes = 64;
  static const size_t kLengthBytes = 16;
  static const bool kIsLittleEndian = false;
  static const size_t kLanes = 1;

  static State Initial() {
    State state;
    memcpy(state.words, kDigest == kStateBytes ? kInitial512 : kInitial384, sizeof state.words);
    return state;
  }

  DIGEST_TARGET static void CompressBytes(State* state, const uint8_t* block) {
    const __m128i swap = _mm_set_epi64x(0x08090a0b0c0d0e0f, 0x0001020304050607);
    __m128i pairs[8];
    for (size_t pair = 0; pair < 8; pair += 1) {
      __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block) + pair);
      pairs[pair] = _mm_shuffle_epi8(loaded, swap);
    }
    Compress(state, pairs);
  }

  static Words WordsOf(State state) { return state; }

  DIGEST_TARGET static Words Xor(Words left, const Words& right) {
    for (size_t word = 0; word < 8; word += 1) left.words[word] ^= right.words[word];
    return left;
  }

  static void Store(const Words& words, uint8_t* digest) {
    for (size_t byte = 0; byte < kStateBytes; byte += 1) {
      digest[byte] = static_cast<uint8_t>(words.words[byte / 8] >> (56 - byte % 8 * 8));
    }
  }

  template <size_t kLanes>
  DIGEST_TARGET static inline void KeyedDigests(const Keyed<Sha512>& keyed, Words* digest) {
    static_assert(kLanes == 1, "one at a time");
    const State* keys[2] = {&keyed.inner, &keyed.outer};
    for (const State* key : keys) {
      __m128i pairs[8] = {};
      uint64_t mark = 0x8000000000000000;
      for (size_t pair = 0; pair < kDigest / 16; pair += 1) {
        const __m128i* words = reinterpret_cast<const __m128i*>(digest->words);
        pairs[pair] = _mm_loadu_si128(words + pair);
      }
      pairs[kDigest / 16] = _mm_set_epi64x(0, static_cast<int64_t>(mark));
      pairs[7] = _mm_set_epi64x((kBlock + kDigest) * 8, 0);
      *digest = *key;
      Compress(digest, pairs);
    }
  }
};

bool CanDerive() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2");
}

}  // namespace

const Deriver* Sha384Deriver() {
  static const Deriver kDeriver = {Derive<Sha512<48>>, Mix<Sha512<48>>};
  return CanDerive() ? &kDeriver : nullptr;
}

const Deriver* Sha512Deriver() {
  static const Deriver kDeriver = {Derive<Sha512<64>>, Mix<Sha512<64>>};
  return CanDerive() ? &kDeriver : nullptr;
}

}  // namespace blockwright

#else

namespace blockwright {

const Deriver* Sha384Deriver() { return nullptr; }
const Deriver* Sha512Deriver() { return nullptr; }

}  // namespace blockwright

#endif
