// SPDX-License-Identifier: Apache-2.0
// AES in ECB, CBC and XTS: eight blocks at a time (AES-NI), or sixteen where aes-wide.cc can.
//
// Sources: FIPS 197 (key expansion), IEEE 1619 (XTS: each tweak is the one before times x in
// GF(2^128), little endian, polynomial 0x87). Nothing is kept between calls: keys are expanded
// each time, which takes less than a sector does.

#include "aes.h"

#include <errno.h>
#include <string.h>

#include "aes-wide.h"

namespace blockwright {

#if defined(__x86_64__)

namespace {

const size_t kBlock = kAesBlock;
const size_t kLanes = 8;

AES_TARGET uint32_t SubstituteWord(uint32_t word) {
  __m128i all = _mm_set1_epi32(static_cast<int>(word));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_aeskeygenassist_si128(all, 0)));
}

AES_TARGET void ExpandKey(const uint8_t* key, size_t bytes, Schedule* schedule) {
  size_t words = bytes / 4;
  schedule->rounds = static_cast<int>(words) + 6;
  uint32_t expanded[4 * (kMostRounds + 1)];
  memcpy(expanded, key, bytes);
  uint32_t constant = 1;
  size_t count = 4 * static_cast<size_t>(schedule->rounds + 1);
  for (size_t index = words; index < count; index += 1) {
    uint32_t word = expanded[index - 1];
    if (index % words == 0) {
      word = SubstituteWord(word);
      word = ((word >> 8) | (word << 24)) ^ constant;
      constant = (constant << 1) ^ (constant & 0x80 ? 0x11b : 0);
    } else if (words > 6 && index % words == 4) {
      word = SubstituteWord(word);
    }
    expanded[index] = expanded[index - words] ^ word;
  }
  memcpy(schedule->keys, expanded, count * 4);
  explicit_bzero(expanded, sizeof expanded);
}

/** The equivalent inverse cipher's keys (FIPS 197, section 5.3.5). */
AES_TARGET void InvertKey(const Schedule& forward, Schedule* inverse) {
  int rounds = forward.rounds;
  inverse->rounds = rounds;
  inverse->keys[0] = forward.keys[rounds];
  for (int round = 1; round < rounds; round += 1) {
    inverse->keys[round] = _mm_aesimc_si128(forward.keys[rounds - round]);
  }
  inverse->keys[rounds] = forward.keys[0];
}

template <bool kEncrypts>
AES_TARGET inline __m128i Round(__m128i block, __m128i key) {
  return kEncrypts ? _mm_aesenc_si128(block, key) : _mm_aesdec_si128(block, key);
}

template <bool kEncrypts>
AES_TARGET inline __m128i LastRound(__m128i block, __m128i key) {
  return kEncrypts ? _mm_aesenclast_si128(block, key) : _mm_aesdeclast_si128(block, key);
}

template <bool kEncrypts>
AES_TARGET inline void Crypt(const Schedule& schedule, __m128i* blocks, size_t count) {
  for (size_t at = 0; at < count; at += 1) {
    blocks[at] = _mm_xor_si128(blocks[at], schedule.keys[0]);
  }
  for (int round = 1; round < schedule.rounds; round += 1) {
    __m128i key = schedule.keys[round];
    for (size_t at = 0; at < count; at += 1) blocks[at] = Round<kEncrypts>(blocks[at], key);
  }
  __m128i key = schedule.keys[schedule.rounds];
  for (size_t at = 0; at < count; at += 1) blocks[at] = LastRound<kEncrypts>(blocks[at], key);
}

AES_TARGET inline __m128i Load(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

AES_TARGET inline void Store(uint8_t* to, __m128i block) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), block);
}

template <bool kEncrypts>
AES_TARGET void XtsSector(const Schedule& schedule, uint8_t* data, size_t bytes, __m128i tweak) {
  for (size_t start = 0; start < bytes; start += kLanes * kBlock) {
    size_t count = (bytes - start) / kBlock;
    if (count > kLanes) count = kLanes;
    __m128i tweaks[kLanes];
    __m128i blocks[kLanes];
    for (size_t at = 0; at < kLanes; at += 1) {
      tweaks[at] = tweak;
      tweak = DoubledTweak(tweak);
      if (at < count) blocks[at] = _mm_xor_si128(Load(data + start + at * kBlock), tweaks[at]);
      else blocks[at] = _mm_setzero_si128();
    }
    Crypt<kEncrypts>(schedule, blocks, kLanes);
    for (size_t at = 0; at < count; at += 1) {
      Store(data + start + at * kBlock, _mm_xor_si128(blocks[at], tweaks[at]));
    }
  }
}

template <bool kEncrypts>
AES_TARGET void EcbRange(const Schedule& schedule, uint8_t* data, size_t bytes) {
  for (size_t start = 0; start < bytes; start += kLanes * kBlock) {
    size_t count = (bytes - start) / kBlock;
    if (count > kLanes) count = kLanes;
    __m128i blocks[kLanes] = {};
    for (size_t at = 0; at < count; at += 1) blocks[at] = Load(data + start + at * kBlock);
    Crypt<kEncrypts>(schedule, blocks, kLanes);
    for (size_t at = 0; at < count; at += 1) Store(data + start + at * kBlock, blocks[at]);
  }
}

/** A chain is serial, so eight sectors go side by side. */
AES_TARGET void CbcEncrypt(const Schedule& schedule, const Sectors& sectors) {
  for (size_t first = 0; first < sectors.count; first += kLanes) {
    size_t count = sectors.count - first;
    if (count > kLanes) count = kLanes;
    __m128i chains[kLanes] = {};
    for (size_t lane = 0; lane < count; lane += 1) {
      chains[lane] = Load(sectors.vectors + (first + lane) * kBlock);
    }
    for (size_t at = 0; at < sectors.bytes; at += kBlock) {
      for (size_t lane = 0; lane < count; lane += 1) {
        const uint8_t* from = sectors.data + (first + lane) * sectors.bytes + at;
        chains[lane] = _mm_xor_si128(chains[lane], Load(from));
      }
      Crypt<true>(schedule, chains, kLanes);
      for (size_t lane = 0; lane < count; lane += 1) {
        Store(sectors.data + (first + lane) * sectors.bytes + at, chains[lane]);
      }
    }
  }
}

AES_TARGET void CbcDecryptSector(const Schedule& inverse, uint8_t* data, size_t bytes,
                                 __m128i chain) {
  for (size_t start = 0; start < bytes; start += kLanes * kBlock) {
    size_t count = (bytes - start) / kBlock;
    if (count > kLanes) count = kLanes;
    __m128i before[kLanes] = {};
    __m128i blocks[kLanes] = {};
    for (size_t at = 0; at < count; at += 1) {
      blocks[at] = Load(data + start + at * kBlock);
      before[at] = chain;
      chain = blocks[at];
    }
    Crypt<false>(inverse, blocks, kLanes);
    for (size_t at = 0; at < count; at += 1) {
      Store(data + start + at * kBlock, _mm_xor_si128(blocks[at], before[at]));
    }
  }
}

template <bool kEncrypts>
AES_TARGET void Xts(const Schedule& schedule, const Sectors& sectors) {
  for (size_t index = 0; index < sectors.count; index += 1) {
    uint8_t* data = sectors.data + index * sectors.bytes;
    XtsSector<kEncrypts>(schedule, data, sectors.bytes, Load(sectors.vectors + index * kBlock));
  }
}

/** Little endian numbers, one to a sector from number `first` on. */
void PlainVectors(const SectorCipher& cipher, uint64_t first, size_t count, uint8_t* vectors) {
  memset(vectors, 0, count * kBlock);
  for (size_t index = 0; index < count; index += 1) {
    uint64_t number = cipher.first_vector + (first + index) * cipher.vector_step;
    if (cipher.has_short_vectors) number &= 0xffffffff;
    memcpy(vectors + index * kBlock, &number, sizeof number);
  }
}

/** Expanded keys of one call; wiped at its end. */
struct Keys {
  Schedule data;
  Schedule essiv;
  Schedule tweaks;
  WideSchedule wide;
  bool is_wide = false;

  ~Keys() { explicit_bzero(this, sizeof *this); }
};

AES_TARGET void SetKeys(const SectorCipher& cipher, bool encrypts, Keys* keys) {
  bool is_xts = cipher.mode == SectorMode::kXts;
  size_t half = is_xts ? cipher.key_bytes / 2 : cipher.key_bytes;
  ExpandKey(cipher.key, half, &keys->data);
  if (!encrypts) {
    Schedule forward = keys->data;
    InvertKey(forward, &keys->data);
    explicit_bzero(&forward, sizeof forward);
  }
  if (is_xts) ExpandKey(cipher.key + half, half, &keys->tweaks);
  if (cipher.vector_key_bytes > 0) {
    ExpandKey(cipher.vector_key, cipher.vector_key_bytes, &keys->essiv);
  }
}

AES_TARGET void CryptNarrow(const SectorCipher& cipher, bool encrypts, const Keys& keys,
                          const Sectors& sectors) {
  size_t bytes = sectors.count * sectors.bytes;
  switch (cipher.mode) {
    case SectorMode::kEcb:
      if (encrypts) EcbRange<true>(keys.data, sectors.data, bytes);
      else EcbRange<false>(keys.data, sectors.data, bytes);
      break;
    case SectorMode::kCbc:
      if (encrypts) {
        CbcEncrypt(keys.data, sectors);
        break;
      }
      for (size_t index = 0; index < sectors.count; index += 1) {
        CbcDecryptSector(keys.data, sectors.data + index * sectors.bytes, sectors.bytes,
                         Load(sectors.vectors + index * kBlock));
      }
      break;
    case SectorMode::kXts:
      if (encrypts) Xts<true>(keys.data, sectors);
      else Xts<false>(keys.data, sectors);
      break;
  }
}

void CryptSome(const SectorCipher& cipher, bool encrypts, const Keys& keys,
               const Sectors& sectors) {
  size_t done = keys.is_wide ? WideCrypt(cipher.mode, encrypts, keys.wide, sectors) : 0;
  if (done == sectors.count) return;
  CryptNarrow(cipher, encrypts, keys,
              {sectors.data + done * sectors.bytes, sectors.count - done, sectors.bytes,
               sectors.vectors + done * kBlock});
}

}  // namespace

int CryptRange(const SectorCipher& cipher, bool encrypts, uint8_t* data, size_t bytes,
               uint64_t first_sector) {
  static const bool has_aes =
      __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1");
  if (!has_aes) return -ENOTSUP;
  if (bytes == 0) return 0;
  Keys keys;
  SetKeys(cipher, encrypts, &keys);
  keys.is_wide = HasWideAes() && !cipher.is_narrow && cipher.sector_bytes % kWideBytes == 0;
  if (keys.is_wide) WidenKeys(keys.data, &keys.wide);
  const size_t kSome = 64;
  uint8_t vectors[kSome * kBlock];
  size_t count = bytes / cipher.sector_bytes;
  for (size_t done = 0; done < count; done += kSome) {
    size_t some = count - done < kSome ? count - done : kSome;
    if (cipher.mode != SectorMode::kEcb) {
      PlainVectors(cipher, first_sector + done, some, vectors);
      if (cipher.vector_key_bytes > 0) EcbRange<true>(keys.essiv, vectors, some * kBlock);
      if (cipher.mode == SectorMode::kXts) EcbRange<true>(keys.tweaks, vectors, some * kBlock);
    }
    uint8_t* part = data + done * cipher.sector_bytes;
    CryptSome(cipher, encrypts, keys, {part, some, cipher.sector_bytes, vectors});
  }
  explicit_bzero(vectors, sizeof vectors);
  return 0;
}

#else

int CryptRange(const SectorCipher&, bool, uint8_t*, size_t, uint64_t) { return -ENOTSUP; }

#endif

}  // namespace blockwright
