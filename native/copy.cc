// SPDX-License-Identifier: Apache-2.0
// Copies ranges between descriptors on one thread of the pool: read, decrypt, look for zeroes,
// encrypt, write.
//
// A program is a list of numbers: how many ciphers and how many steps; of each cipher its way (see
// aes.h), bytes of a sector, of its key and of the key of its vectors, which lie in this order in
// the bytes of all keys, and the number of its first vector; of each step its target descriptor and
// offset, length, granularity of zeroes (0: not looked for; -1: not looked for, and the host copies
// by itself what it can, sharing
// storage where its file system does), the target's cipher (-1: none) and what the first byte is to
// it, and the number of parts; then of each part its descriptor (-1: zeroes), offset, length,
// cipher and offset in that. Ranges with a cipher are whole sectors, and so is every part and every
// unit of zeroes beside one. The result has four numbers for each step: outcome, errno, bytes
// written, count of zero ranges; then offset and length of each of these. Zero ranges are left out
// of the target. The cancel flag is looked at between steps. What will be flushed soon anyway may
// be sent on its way to the disk step by step: the flush then waits for the rest only, and copying
// and writing back overlap. That is no flush: nothing waits for it, and what fails on the way is
// reported by the flush. Nothing is kept between two calls; the caller holds the descriptors open
// until the answer.

#include "addon.h"
#include "aes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <memory>
#include <vector>

namespace blockwright {
namespace {

// Stays in a core's cache between its read and its write.
const size_t kChunk = 256 * 1024;
const size_t kHead = 2;
const size_t kCipherSize = 5;
const size_t kStepHead = 7;
const size_t kPartSize = 5;

enum Outcome { kWritten, kZero, kSourceFailed, kTargetFailed, kCancelled };

struct CopyTask {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref cancel_owner = nullptr;
  const int32_t* cancel = nullptr;
  bool write_back = false;
  std::vector<double> program;
  std::vector<uint8_t> keys;
  std::vector<SectorCipher> ciphers;
  std::vector<double> results;

  ~CopyTask() { explicit_bzero(keys.data(), keys.size()); }
};

/** A place in the space of a cipher; none: bytes stay as they are. */
struct Cryption {
  const SectorCipher* cipher;
  int64_t offset;

  int Run(bool encrypts, uint8_t* bytes, size_t length, int64_t skip) const {
    if (cipher == nullptr) return 0;
    uint64_t position = static_cast<uint64_t>(offset + skip);
    if (position % cipher->sector_bytes != 0 || length % cipher->sector_bytes != 0) return EINVAL;
    return -CryptRange(*cipher, encrypts, bytes, length, position / cipher->sector_bytes);
  }
};

struct Part {
  int descriptor;
  int64_t offset;
  int64_t length;
  Cryption cryption;
};

struct Step {
  int descriptor;
  int64_t offset;
  int64_t length;
  int64_t granularity;
  Cryption cryption;
  std::vector<Part> parts;
};

/** One for each thread, given back when the thread ends. */
uint8_t* Scratch(size_t length) {
  struct Free {
    void operator()(uint8_t* bytes) const { free(bytes); }
  };
  static thread_local std::unique_ptr<uint8_t, Free> bytes;
  static thread_local size_t size = 0;
  if (size < length) {
    bytes.reset(static_cast<uint8_t*>(malloc(length)));
    size = bytes ? length : 0;
  }
  return bytes.get();
}

/** Bytes past the end of the file read as zeroes; 0 or an errno. */
int ReadFully(int descriptor, uint8_t* bytes, size_t length, int64_t offset) {
  while (length > 0) {
    ssize_t count = pread(descriptor, bytes, length, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) {
      memset(bytes, 0, length);
      return 0;
    }
    bytes += count;
    length -= static_cast<size_t>(count);
    offset += count;
  }
  return 0;
}

int WriteFully(int descriptor, const uint8_t* bytes, size_t length, int64_t offset) {
  while (length > 0) {
    ssize_t count = pwrite(descriptor, bytes, length, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    if (count == 0) return EIO;
    bytes += count;
    length -= static_cast<size_t>(count);
    offset += count;
  }
  return 0;
}

/** Reads the parts of a step one stretch after another. */
class Gatherer {
 public:
  explicit Gatherer(const std::vector<Part>& parts) : parts_(parts) {}

  void Skip(int64_t length) {
    while (length > 0) {
      int64_t left = parts_[part_].length - static_cast<int64_t>(skip_);
      if (length < left) {
        skip_ += static_cast<size_t>(length);
        return;
      }
      length -= left;
      part_ += 1;
      skip_ = 0;
    }
  }

  int Fill(uint8_t* bytes, size_t length) {
    while (length > 0) {
      if (part_ == parts_.size()) return EINVAL;
      const Part& part = parts_[part_];
      size_t left = static_cast<size_t>(part.length) - skip_;
      size_t count = left < length ? left : length;
      int failure = 0;
      if (part.descriptor < 0) {
        memset(bytes, 0, count);
      } else {
        int64_t offset = part.offset + static_cast<int64_t>(skip_);
        failure = ReadFully(part.descriptor, bytes, count, offset);
      }
      if (failure == 0) {
        failure = part.cryption.Run(false, bytes, count, static_cast<int64_t>(skip_));
      }
      if (failure != 0) return failure;
      bytes += count;
      length -= count;
      skip_ += count;
      if (skip_ == static_cast<size_t>(part.length)) {
        part_ += 1;
        skip_ = 0;
      }
    }
    return 0;
  }

 private:
  const std::vector<Part>& parts_;
  size_t part_ = 0;
  size_t skip_ = 0;
};

struct StepResult {
  Outcome outcome = kWritten;
  int failure = 0;
  int64_t bytes = 0;
  std::vector<double> zeroes;

  void AddZeroes(int64_t offset, size_t length) {
    size_t count = zeroes.size();
    if (count > 0 && zeroes[count - 2] + zeroes[count - 1] == static_cast<double>(offset)) {
      zeroes[count - 1] += static_cast<double>(length);
      return;
    }
    zeroes.push_back(static_cast<double>(offset));
    zeroes.push_back(static_cast<double>(length));
  }
};

/** Writes what of a chunk is not zero, and may encrypt it where it is; 0 or an errno. */
int PutChunk(const Step& step, uint8_t* bytes, size_t length, int64_t start,
             StepResult* result) {
  size_t unit = step.granularity > 0 ? static_cast<size_t>(step.granularity) : length;
  size_t written = 0;
  for (size_t at = 0; at < length;) {
    size_t end = at + unit < length ? at + unit : length;
    bool zero = step.granularity > 0 && ZeroPrefixOf(bytes + at, end - at) == end - at;
    // Data is put out in one piece, before the zeroes that end it.
    size_t data = zero ? at : end;
    if (data > written && (zero || end == length)) {
      int64_t skip = start + static_cast<int64_t>(written);
      size_t count = data - written;
      int failure = step.cryption.Run(true, bytes + written, count, skip);
      if (failure == 0) {
        failure = WriteFully(step.descriptor, bytes + written, count, step.offset + skip);
      }
      if (failure != 0) return failure;
      result->bytes += static_cast<int64_t>(data - written);
    }
    if (zero) {
      result->AddZeroes(start + static_cast<int64_t>(at), end - at);
      written = end;
    }
    at = end;
  }
  return 0;
}

/** Copies in the host as far as that goes; gives the bytes done, and why it ended is no matter. */
int64_t CopyInHost(const Step& step) {
  int64_t done = 0;
  for (const Part& part : step.parts) {
    if (part.descriptor < 0) return done;
    for (int64_t at = 0; at < part.length;) {
      off64_t from = part.offset + at;
      off64_t to = step.offset + done;
      size_t left = static_cast<size_t>(part.length - at);
      ssize_t count = copy_file_range(part.descriptor, &from, step.descriptor, &to, left, 0);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return done;
      at += count;
      done += count;
    }
  }
  return done;
}

StepResult RunStep(const Step& step) {
  StepResult result;
  size_t unit = step.granularity > 0 ? static_cast<size_t>(step.granularity) : 0;
  size_t chunk = unit > kChunk ? unit : kChunk;
  if (unit > 0) chunk -= chunk % unit;
  uint8_t* bytes = Scratch(chunk);
  if (bytes == nullptr) {
    result.outcome = kSourceFailed;
    result.failure = ENOMEM;
    return result;
  }
  Gatherer gatherer(step.parts);
  if (step.granularity < 0) result.bytes = CopyInHost(step);
  gatherer.Skip(result.bytes);
  for (int64_t start = result.bytes; start < step.length; start += static_cast<int64_t>(chunk)) {
    int64_t left = step.length - start;
    size_t length = left < static_cast<int64_t>(chunk) ? static_cast<size_t>(left) : chunk;
    result.failure = gatherer.Fill(bytes, length);
    if (result.failure != 0) {
      result.outcome = kSourceFailed;
      return result;
    }
    result.failure = PutChunk(step, bytes, length, start, &result);
    if (result.failure != 0) {
      result.outcome = kTargetFailed;
      return result;
    }
  }
  if (result.bytes == 0 && step.length > 0) result.outcome = kZero;
  return result;
}

void RunCopy(napi_env, void* data) {
  CopyTask* task = static_cast<CopyTask*>(data);
  const double* at = task->program.data();
  size_t steps = static_cast<size_t>(at[1]);
  at += kHead + task->ciphers.size() * kCipherSize;
  auto cryption = [task](const double* two) {
    const SectorCipher* cipher = two[0] < 0 ? nullptr : &task->ciphers[static_cast<size_t>(two[0])];
    return Cryption{cipher, static_cast<int64_t>(two[1])};
  };
  for (size_t index = 0; index < steps; index += 1) {
    Step step;
    step.descriptor = static_cast<int>(at[0]);
    step.offset = static_cast<int64_t>(at[1]);
    step.length = static_cast<int64_t>(at[2]);
    step.granularity = static_cast<int64_t>(at[3]);
    step.cryption = cryption(at + 4);
    size_t parts = static_cast<size_t>(at[6]);
    at += kStepHead;
    for (size_t part = 0; part < parts; part += 1, at += kPartSize) {
      step.parts.push_back({static_cast<int>(at[0]), static_cast<int64_t>(at[1]),
                            static_cast<int64_t>(at[2]), cryption(at + 3)});
    }
    StepResult result;
    if (__atomic_load_n(task->cancel, __ATOMIC_SEQ_CST) != 0) result.outcome = kCancelled;
    else result = RunStep(step);
    if (task->write_back && result.bytes > 0) {
      sync_file_range(step.descriptor, step.offset, step.length, SYNC_FILE_RANGE_WRITE);
    }
    size_t ranges = result.zeroes.size() / 2;
    for (double number : {static_cast<double>(result.outcome), static_cast<double>(result.failure),
                          static_cast<double>(result.bytes), static_cast<double>(ranges)}) {
      task->results.push_back(number);
    }
    for (double number : result.zeroes) task->results.push_back(number);
  }
}

void FinishCopy(napi_env env, napi_status, void* data) {
  std::unique_ptr<CopyTask> task(static_cast<CopyTask*>(data));
  size_t count = task->results.size();
  void* bytes = nullptr;
  napi_value buffer;
  napi_value numbers;
  napi_delete_reference(env, task->cancel_owner);
  napi_delete_async_work(env, task->work);
  if (napi_create_arraybuffer(env, count * sizeof(double), &bytes, &buffer) == napi_ok &&
      napi_create_typedarray(env, napi_float64_array, count, buffer, 0, &numbers) == napi_ok) {
    if (count > 0) memcpy(bytes, task->results.data(), count * sizeof(double));
    napi_resolve_deferred(env, task->deferred, numbers);
  } else {
    napi_value message;
    napi_value error;
    napi_create_string_utf8(env, "no memory for the results", NAPI_AUTO_LENGTH, &message);
    napi_create_error(env, nullptr, message, &error);
    napi_reject_deferred(env, task->deferred, error);
  }
}

/** Takes the ciphers from the program's head, and their keys from the copy of them. */
bool ReadCiphers(CopyTask* task) {
  const std::vector<double>& program = task->program;
  if (program.size() < kHead) return false;
  double most = static_cast<double>((program.size() - kHead) / kCipherSize);
  if (!(program[0] >= 0) || program[0] > most) return false;
  size_t used = 0;
  for (size_t index = 0; index < static_cast<size_t>(program[0]); index += 1) {
    const double* at = program.data() + kHead + index * kCipherSize;
    SectorCipher cipher;
    double left = static_cast<double>(task->keys.size() - used);
    if (!(at[2] >= 0) || !(at[3] >= 0) || at[2] + at[3] > left) return false;
    cipher.key = task->keys.data() + used;
    cipher.key_bytes = static_cast<size_t>(at[2]);
    cipher.vector_key = cipher.key + cipher.key_bytes;
    cipher.vector_key_bytes = static_cast<size_t>(at[3]);
    used += cipher.key_bytes + cipher.vector_key_bytes;
    if (!SetCipher(&cipher, static_cast<int64_t>(at[0]), static_cast<int64_t>(at[1]))) return false;
    if (!(at[4] >= 0)) return false;
    cipher.first_vector = static_cast<uint64_t>(at[4]);
    task->ciphers.push_back(cipher);
  }
  return true;
}

/** Whether the program is as long as it says, with lengths that can be. */
bool IsWhole(const CopyTask& task) {
  const std::vector<double>& program = task.program;
  double ciphers = static_cast<double>(task.ciphers.size());
  size_t at = kHead + task.ciphers.size() * kCipherSize;
  for (double step = 0; step < program[1]; step += 1) {
    if (program.size() - at < kStepHead) return false;
    double length = program[at + 2];
    double parts = program[at + 6];
    if (!(program[at + 4] < ciphers)) return false;
    at += kStepHead;
    if (!(parts >= 0) || parts > static_cast<double>((program.size() - at) / kPartSize)) {
      return false;
    }
    for (double part = 0; part < parts; part += 1, at += kPartSize) {
      if (!(program[at + 2] > 0) || !(program[at + 3] < ciphers)) return false;
      length -= program[at + 2];
    }
    if (length != 0) return false;
  }
  return at == program.size();
}

// (program, cancel, writeBack, keys): runs the steps on a thread of the pool; a promise of the
// results. With writeBack 1 the host starts to write back what each step wrote.
napi_value CopyLater(napi_env env, napi_callback_info info) {
  Arguments arguments(env, info);
  std::unique_ptr<CopyTask> task(new CopyTask());
  size_t count;
  const double* program = arguments.Numbers(0, &count);
  task->cancel = arguments.Flag(1);
  task->write_back = arguments.Integer(2) != 0;
  size_t key_bytes = 0;
  const uint8_t* keys = arguments.Bytes(3, &key_bytes);
  if (!arguments.ok()) return nullptr;
  task->program.assign(program, program + count);
  task->keys.assign(keys, keys + key_bytes);
  if (!ReadCiphers(task.get()) || !IsWhole(*task)) {
    napi_throw_type_error(env, nullptr, "a whole program is expected");
    return nullptr;
  }
  napi_value promise;
  napi_value name;
  // The flag is written to meanwhile, and must live as long as it is read.
  bool queued =
      napi_create_reference(env, arguments.Value(1), 1, &task->cancel_owner) == napi_ok &&
      napi_create_promise(env, &task->deferred, &promise) == napi_ok &&
      napi_create_string_utf8(env, "blockwright.copy", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_async_work(env, nullptr, name, RunCopy, FinishCopy, task.get(), &task->work) ==
          napi_ok &&
      napi_queue_async_work(env, task->work) == napi_ok;
  if (!queued) return nullptr;
  task.release();
  return promise;
}

}  // namespace

bool RegisterCopy(napi_env env, napi_value exports) {
  return Export(env, exports, "copyLater", CopyLater);
}

}  // namespace blockwright
