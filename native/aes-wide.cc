// SPDX-License-Identifier: Apache-2.0
// AES in ECB, CBC and XTS by VAES and AVX-512: four blocks to a register, four registers at a time.
//
// A chain of CBC waits for itself when it encrypts: the sixteen blocks are then of as many sectors.

#include "aes-wide.h"

#if defined(__x86_64__)

#include <cpuid.h>

#define VAES_TARGET \
  __attribute__((target("vaes,vpclmulqdq,avx512f,avx512bw,avx512dq,avx512vl,aes,sse4.1")))

namespace blockwright {
namespace {

const size_t kRegisters = 4;
const size_t kRegisterBytes = 4 * kAesBlock;
const size_t kSectorsAtOnce = 4 * kRegisters;

template <bool kEncrypts>
VAES_TARGET inline __m512i Round(__m512i blocks, __m512i key) {
  return kEncrypts ? _mm512_aesenc_epi128(blocks, key) : _mm512_aesdec_epi128(blocks, key);
}

template <bool kEncrypts>
VAES_TARGET inline __m512i LastRound(__m512i blocks, __m512i key) {
  return kEncrypts ? _mm512_aesenclast_epi128(blocks, key) : _mm512_aesdeclast_epi128(blocks, key);
}

VAES_TARGET inline __m512i KeyOf(const WideSchedule& wide, int round) {
  return _mm512_load_si512(wide.keys[round]);
}

template <bool kEncrypts>
VAES_TARGET inline void Crypt(const WideSchedule& wide, __m512i* blocks) {
  __m512i first = KeyOf(wide, 0);
  for (size_t at = 0; at < kRegisters; at += 1) blocks[at] = _mm512_xor_si512(blocks[at], first);
  for (int round = 1; round < wide.rounds; round += 1) {
    __m512i key = KeyOf(wide, round);
    for (size_t at = 0; at < kRegisters; at += 1) blocks[at] = Round<kEncrypts>(blocks[at], key);
  }
  __m512i last = KeyOf(wide, wide.rounds);
  for (size_t at = 0; at < kRegisters; at += 1) blocks[at] = LastRound<kEncrypts>(blocks[at], last);
}

VAES_TARGET inline __m512i LoadWide(const uint8_t* from) { return _mm512_loadu_si512(from); }

VAES_TARGET inline void StoreWide(uint8_t* to, __m512i blocks) { _mm512_storeu_si512(to, blocks); }

VAES_TARGET inline __m128i LoadBlock(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

/** Four tweaks at once become the four that follow them: times x^4. */
VAES_TARGET inline __m512i FourTimesDoubled(__m512i tweaks) {
  __m512i carries = _mm512_srli_epi64(tweaks, 60);
  __m512i folded = _mm512_clmulepi64_epi128(carries, _mm512_set1_epi64(0x87), 0x01);
  __m512i shifted = _mm512_slli_epi64(tweaks, 4);
  return _mm512_xor_si512(_mm512_xor_si512(shifted, _mm512_bslli_epi128(carries, 8)), folded);
}

template <bool kEncrypts>
VAES_TARGET void XtsSector(const WideSchedule& wide, uint8_t* data, size_t bytes, __m128i tweak) {
  __m128i second = DoubledTweak(tweak);
  __m128i third = DoubledTweak(second);
  __m512i next = _mm512_inserti32x4(
      _mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(tweak), second, 1), third, 2),
      DoubledTweak(third), 3);
  for (size_t start = 0; start < bytes; start += kWideBytes) {
    __m512i tweaks[kRegisters];
    __m512i blocks[kRegisters];
    for (size_t at = 0; at < kRegisters; at += 1) {
      tweaks[at] = next;
      next = FourTimesDoubled(next);
      blocks[at] = _mm512_xor_si512(LoadWide(data + start + at * kRegisterBytes), tweaks[at]);
    }
    Crypt<kEncrypts>(wide, blocks);
    for (size_t at = 0; at < kRegisters; at += 1) {
      StoreWide(data + start + at * kRegisterBytes, _mm512_xor_si512(blocks[at], tweaks[at]));
    }
  }
}

template <bool kEncrypts>
VAES_TARGET void XtsSectors(const WideSchedule& wide, const Sectors& sectors) {
  for (size_t index = 0; index < sectors.count; index += 1) {
    uint8_t* data = sectors.data + index * sectors.bytes;
    __m128i tweak = LoadBlock(sectors.vectors + index * kAesBlock);
    XtsSector<kEncrypts>(wide, data, sectors.bytes, tweak);
  }
}

template <bool kEncrypts>
VAES_TARGET void EcbRange(const WideSchedule& wide, uint8_t* data, size_t bytes) {
  for (size_t start = 0; start < bytes; start += kWideBytes) {
    __m512i blocks[kRegisters];
    for (size_t at = 0; at < kRegisters; at += 1) {
      blocks[at] = LoadWide(data + start + at * kRegisterBytes);
    }
    Crypt<kEncrypts>(wide, blocks);
    for (size_t at = 0; at < kRegisters; at += 1) {
      StoreWide(data + start + at * kRegisterBytes, blocks[at]);
    }
  }
}

VAES_TARGET void CbcDecryptSector(const WideSchedule& wide, uint8_t* data, size_t bytes,
                                  __m128i vector) {
  // Only its last block is looked at: the one before those that follow.
  __m512i before = _mm512_broadcast_i32x4(vector);
  for (size_t start = 0; start < bytes; start += kWideBytes) {
    __m512i blocks[kRegisters];
    __m512i chained[kRegisters];
    for (size_t at = 0; at < kRegisters; at += 1) {
      blocks[at] = LoadWide(data + start + at * kRegisterBytes);
      chained[at] = _mm512_alignr_epi64(blocks[at], before, 6);
      before = blocks[at];
    }
    Crypt<false>(wide, blocks);
    for (size_t at = 0; at < kRegisters; at += 1) {
      StoreWide(data + start + at * kRegisterBytes, _mm512_xor_si512(blocks[at], chained[at]));
    }
  }
}

/** One block of each of four places. */
VAES_TARGET inline __m512i GatherBlocks(const uint8_t* from, size_t distance) {
  __m512i blocks = _mm512_castsi128_si512(LoadBlock(from));
  blocks = _mm512_inserti32x4(blocks, LoadBlock(from + distance), 1);
  blocks = _mm512_inserti32x4(blocks, LoadBlock(from + 2 * distance), 2);
  return _mm512_inserti32x4(blocks, LoadBlock(from + 3 * distance), 3);
}

VAES_TARGET inline void ScatterBlocks(uint8_t* to, size_t distance, __m512i blocks) {
  __m128i* places[4];
  for (size_t at = 0; at < 4; at += 1) places[at] = reinterpret_cast<__m128i*>(to + at * distance);
  _mm_storeu_si128(places[0], _mm512_castsi512_si128(blocks));
  _mm_storeu_si128(places[1], _mm512_extracti32x4_epi32(blocks, 1));
  _mm_storeu_si128(places[2], _mm512_extracti32x4_epi32(blocks, 2));
  _mm_storeu_si128(places[3], _mm512_extracti32x4_epi32(blocks, 3));
}

/** Sixteen sectors side by side. */
VAES_TARGET void CbcEncryptSome(const WideSchedule& wide, const Sectors& sectors) {
  size_t apart = 4 * sectors.bytes;
  __m512i chains[kRegisters];
  for (size_t at = 0; at < kRegisters; at += 1) {
    chains[at] = LoadWide(sectors.vectors + at * kRegisterBytes);
  }
  for (size_t start = 0; start < sectors.bytes; start += kAesBlock) {
    for (size_t at = 0; at < kRegisters; at += 1) {
      __m512i blocks = GatherBlocks(sectors.data + at * apart + start, sectors.bytes);
      chains[at] = _mm512_xor_si512(chains[at], blocks);
    }
    Crypt<true>(wide, chains);
    for (size_t at = 0; at < kRegisters; at += 1) {
      ScatterBlocks(sectors.data + at * apart + start, sectors.bytes, chains[at]);
    }
  }
}

size_t CbcEncrypt(const WideSchedule& wide, const Sectors& sectors) {
  size_t done = 0;
  for (; sectors.count - done >= kSectorsAtOnce; done += kSectorsAtOnce) {
    CbcEncryptSome(wide, {sectors.data + done * sectors.bytes, kSectorsAtOnce, sectors.bytes,
                          sectors.vectors + done * kAesBlock});
  }
  return done;
}

bool LookForWideAes() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  bool wide = (ecx & (1u << 9)) != 0 && (ecx & (1u << 10)) != 0;
  return wide && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace

bool HasWideAes() {
  static const bool found = LookForWideAes();
  return found;
}

VAES_TARGET void WidenKeys(const Schedule& schedule, WideSchedule* wide) {
  wide->rounds = schedule.rounds;
  for (int round = 0; round <= schedule.rounds; round += 1) {
    _mm512_store_si512(wide->keys[round], _mm512_broadcast_i32x4(schedule.keys[round]));
  }
}

size_t WideCrypt(SectorMode mode, bool encrypts, const WideSchedule& wide, const Sectors& sectors) {
  size_t bytes = sectors.count * sectors.bytes;
  switch (mode) {
    case SectorMode::kEcb:
      if (encrypts) EcbRange<true>(wide, sectors.data, bytes);
      else EcbRange<false>(wide, sectors.data, bytes);
      break;
    case SectorMode::kCbc:
      if (encrypts) return CbcEncrypt(wide, sectors);
      for (size_t index = 0; index < sectors.count; index += 1) {
        CbcDecryptSector(wide, sectors.data + index * sectors.bytes, sectors.bytes,
                         LoadBlock(sectors.vectors + index * kAesBlock));
      }
      break;
    case SectorMode::kXts:
      if (encrypts) XtsSectors<true>(wide, sectors);
      else XtsSectors<false>(wide, sectors);
      break;
  }
  return sectors.count;
}

}  // namespace blockwright

#endif
