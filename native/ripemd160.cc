// SPDX-License-Identifier: Apache-2.0
// RIPEMD-160 (Dobbertin, Bosselaers, Preneel: "RIPEMD-160: A Strengthened Version of RIPEMD", 1996)
// for PBKDF2: four blocks of the key side by side, a word of each in one vector.
//
// Vectors are the compiler's own, so that it works on every processor.

#include "pbkdf2.h"

#define DIGEST_TARGET

#include "pbkdf2-template.h"

namespace blockwright {
namespace {

typedef uint32_t Vector __attribute__((vector_size(16)));

const size_t kWords = 5;
const size_t kBlockWords = 16;
const int kRounds = 5;

constexpr uint32_t kInitial[kWords] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};

/** Of the left line and the right one: constants of rounds, words that are added, rotations. */
constexpr uint32_t kAdded[2][kRounds] = {{0, 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xa953fd4e},
                                         {0x50a28be6, 0x5c4dd124, 0x6d703ef3, 0x7a6d76e9, 0}};
constexpr uint8_t kOrder[2][kRounds][kBlockWords] = {
    {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
     {7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8},
     {3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12},
     {1, 9, 11, 10, 0, 8, 12, 4, 13, 3, 7, 15, 14, 5, 6, 2},
     {4, 0, 5, 9, 7, 12, 2, 10, 14, 1, 3, 8, 11, 6, 15, 13}},
    {{5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12},
     {6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8, 12, 4, 9, 1, 2},
     {15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13},
     {8, 6, 4, 1, 3, 11, 15, 0, 5, 12, 2, 13, 9, 7, 10, 14},
     {12, 15, 10, 4, 1, 5, 8, 7, 6, 2, 13, 14, 0, 3, 9, 11}}};
constexpr uint8_t kRotations[2][kRounds][kBlockWords] = {
    {{11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8},
     {7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15, 9, 11, 7, 13, 12},
     {11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5},
     {11, 12, 14, 15, 14, 15, 9, 8, 9, 14, 5, 6, 8, 6, 5, 12},
     {9, 15, 5, 11, 6, 8, 13, 12, 5, 12, 13, 14, 11, 8, 5, 6}},
    {{8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6},
     {9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12, 7, 6, 15, 13, 11},
     {9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5},
     {15, 5, 8, 11, 14, 14, 6, 14, 6, 9, 12, 9, 12, 5, 15, 8},
     {8, 5, 12, 9, 12, 5, 14, 6, 8, 13, 6, 5, 15, 13, 11, 11}}};

inline Vector Rotated(Vector words, int bits) { return (words << bits) | (words >> (32 - bits)); }

template <int kFunction>
inline Vector Mixed(Vector x, Vector y, Vector z) {
  switch (kFunction) {
    case 0: return x ^ y ^ z;
    case 1: return z ^ (x & (y ^ z));
    case 2: return (x | ~y) ^ z;
    case 3: return y ^ (z & (x ^ y));
    default: return x ^ (y | ~z);
  }
}

/** A round of one of the lines. */
template <int kLine, int kRound>
inline void Round(Vector* line, const Vector* message) {
  Vector a = line[0], b = line[1], c = line[2], d = line[3], e = line[4];
#pragma GCC unroll 16
  for (size_t step = 0; step < kBlockWords; step += 1) {
    Vector word = message[kOrder[kLine][kRound][step]] + kAdded[kLine][kRound];
    Vector sum = a + word + Mixed<kLine == 0 ? kRound : 4 - kRound>(b, c, d);
    a = e;
    e = d;
    d = Rotated(c, 10);
    c = b;
    b = Rotated(sum, kRotations[kLine][kRound][step]) + a;
  }
  line[0] = a;
  line[1] = b;
  line[2] = c;
  line[3] = d;
  line[4] = e;
}

template <int kRound>
inline void BothRounds(Vector (*lines)[kWords], const Vector* message) {
  Round<0, kRound>(lines[0], message);
  Round<1, kRound>(lines[1], message);
}

/** One block of message into each of four states. */
void Compress(Vector* state, const Vector* message) {
  Vector lines[2][kWords];
  memcpy(lines[0], state, sizeof lines[0]);
  memcpy(lines[1], state, sizeof lines[1]);
  BothRounds<0>(lines, message);
  BothRounds<1>(lines, message);
  BothRounds<2>(lines, message);
  BothRounds<3>(lines, message);
  BothRounds<4>(lines, message);
  Vector first = state[1] + lines[0][2] + lines[1][3];
  state[1] = state[2] + lines[0][3] + lines[1][4];
  state[2] = state[3] + lines[0][4] + lines[1][0];
  state[3] = state[4] + lines[0][0] + lines[1][1];
  state[4] = state[0] + lines[0][1] + lines[1][2];
  state[0] = first;
}

struct Words160 {
  uint32_t words[kWords];
};

struct Ripemd160 {
  using State = Words160;
  using Words = Words160;
  static const size_t kBlock = 64;
  static const size_t kDigest = 20;
  static const size_t kStateBytes = 20;
  static const size_t kLengthBytes = 8;
  static const bool kIsLittleEndian = true;
  static const size_t kLanes = 4;

  static State Initial() {
    State state;
    memcpy(state.words, kInitial, sizeof state.words);
    return state;
  }

  static void CompressBytes(State* state, const uint8_t* block) {
    Vector states[kWords] = {};
    Vector message[kBlockWords] = {};
    for (size_t word = 0; word < kWords; word += 1) states[word][0] = state->words[word];
    for (size_t byte = 0; byte < kBlock; byte += 1) {
      message[byte / 4][0] |= static_cast<uint32_t>(block[byte]) << (byte % 4 * 8);
    }
    Compress(states, message);
    for (size_t word = 0; word < kWords; word += 1) state->words[word] = states[word][0];
    explicit_bzero(message, sizeof message);
  }

  static Words WordsOf(State state) { return state; }

  static Words Xor(Words left, const Words& right) {
    for (size_t word = 0; word < kWords; word += 1) left.words[word] ^= right.words[word];
    return left;
  }

  static void Store(const Words& words, uint8_t* digest) {
    for (size_t byte = 0; byte < kDigest; byte += 1) {
      digest[byte] = static_cast<uint8_t>(words.words[byte / 4] >> (byte % 4 * 8));
    }
  }

  template <size_t kLanes>
  static void KeyedDigests(const Keyed<Ripemd160>& keyed, Words* digests) {
    Vector message[kBlockWords] = {};
    for (size_t lane = 0; lane < kLanes; lane += 1) {
      for (size_t word = 0; word < kWords; word += 1) {
        message[word][lane] = digests[lane].words[word];
      }
    }
    message[kWords] = Vector{} + 0x80;
    message[kBlockWords - 2] = Vector{} + static_cast<uint32_t>((kBlock + kDigest) * 8);
    const State* keys[2] = {&keyed.inner, &keyed.outer};
    for (const State* key : keys) {
      Vector states[kWords];
      for (size_t word = 0; word < kWords; word += 1) states[word] = Vector{} + key->words[word];
      Compress(states, message);
      memcpy(message, states, sizeof states);
    }
    for (size_t lane = 0; lane < kLanes; lane += 1) {
      for (size_t word = 0; word < kWords; word += 1) {
        digests[lane].words[word] = message[word][lane];
      }
    }
  }
};

}  // namespace

const Deriver* Ripemd160Deriver() {
  static const Deriver kDeriver = {Derive<Ripemd160>, Mix<Ripemd160>};
  return &kDeriver;
}

}  // namespace blockwright
