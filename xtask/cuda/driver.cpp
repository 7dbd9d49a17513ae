// A driver and a run-time compiler of CUDA without a GPU: the functions that Ossia calls, over ordinary memory, with the
// kernels compiled in (emulated.h). Built as libcuda.so and libnvrtc.so, found like the real ones. x86-64 with gcc or clang.
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;
#include "emulated.h"
#include "wgmma.h"
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {
static std::map<std::string, Kernel>& kernels() { static std::map<std::string, Kernel> all; return all; }
void add_kernel(const char* name, Kernel kernel) { kernels()[name] = kernel; }

// Saves what a called function must keep and goes on with the other stack.
extern "C" void switch_stack(void** save, void* to);
asm(R"(
.globl switch_stack
switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

enum Wait { RUNS, WARP, BLOCK, DONE };
struct Fiber { void* at; Wait wait; Dim3 index; };
struct Warp { unsigned char given[2][32 * 64]; int arrived, live, turn; Product product; };
static const size_t STACK = 64 << 10;
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static unsigned char* stacks;
static void* scheduler;
static int current, block_live, block_arrived;
static void (*kernel)(void**);
static void** arguments;
static std::vector<unsigned char> shared_memory;

Product& product_of_warp() { return warps[current / 32].product; }
unsigned char* dynamic_shared() { return shared_memory.data(); }
static void give_way(Wait why) { fibers[current].wait = why; switch_stack(&fibers[current].at, scheduler); }

static void fail(const char* what) { fprintf(stderr, "emulated: %s\n", what); abort(); }

// `loose`: copies have come that products may not yet read.
struct Copy { void* to; const void* from; bool zero; int group; };
struct Copies { std::vector<Copy> waiting; int group; bool loose; };
static std::vector<Copies> copies;
static int loose;

// A product under way: what it read, to see that it has not changed, and what becomes of its sums.
static const int WIDEST = 24;
struct Under { float* c; const u32* a; u32 a_was[4]; u64 b; bool add; int tiles, group; float sums[WIDEST * 4]; std::vector<u16> b_was; };
struct Products { std::deque<Under> waiting; int group; bool ordered; };
static std::vector<Products> products;

static std::vector<bool> waited;
void has_waited() { waited[current] = true; }

static void body() {
  kernel(arguments);
  if (!waited[current]) fail("a thread that ends without having waited for the kernels before");
  if (!products[current].waiting.empty()) fail("a thread that ends without having waited for its products");
  Warp& warp = warps[current / 32];
  warp.live--;
  block_live--;
  give_way(DONE);
  abort();
}


void copy_begins(void* to, const void* from, bool zero) {
  if (((uintptr_t)to | (zero ? 0 : (uintptr_t)from)) % 16) fail("a copy of 16 bytes that is not aligned");
  // From now on it may come: what lay there is not a number.
  memset(to, 0xff, 16);
  Copies& own = copies[current];
  own.waiting.push_back({to, from, zero, own.group});
}
void copies_close() { copies[current].group++; }
void copies_wait(int left) {
  Copies& own = copies[current];
  size_t done = 0;
  for (; done < own.waiting.size() && own.waiting[done].group < own.group - left; done++) {
    Copy& copy = own.waiting[done];
    if (copy.zero) memset(copy.to, 0, 16); else memcpy(copy.to, copy.from, 16);
  }
  own.waiting.erase(own.waiting.begin(), own.waiting.begin() + done);
  if (done > 0 && !own.loose) own.loose = true, loose++;
}
void copies_fenced() {
  Copies& own = copies[current];
  if (own.loose) own.loose = false, loose--;
}

void block_meets() { block_arrived++; give_way(BLOCK); }

const unsigned char* warp_gives(const void* value, int size) {
  if (size > 64) abort();
  Warp& warp = warps[current / 32];
  int turn = warp.turn;
  memcpy(warp.given[turn % 2] + (current % 32) * size, value, size);
  warp.arrived++;
  give_way(WARP);
  return warp.given[turn % 2];
}

// [16, 8 tiles] from where the operand says.
static std::vector<u16> operand_of(u64 b, int tiles) {
  const size_t start = (b & 0x3fff) << 4, halves = (b >> 16 & 0x3fff) << 4, eights = (b >> 32 & 0x3fff) << 4;
  if (b & ~0x00003fff3fff3fffull) fail("an operand with a swizzle, or with bits that mean nothing");
  std::vector<u16> out(16 * 8 * tiles);
  for (int k = 0; k < 16; k++)
    for (int n = 0; n < 8 * tiles; n++) {
      size_t at = start + k / 8 * halves + n / 8 * eights + n % 8 * 16 + k % 8 * 2;
      if (at + 2 > shared_memory.size() - 16) fail("an operand outside of shared memory");
      memcpy(&out[k * 8 * tiles + n], &shared_memory[at], 2);
    }
  return out;
}

void products_ordered() { products[current].ordered = true; }

void product_begins(float* c, const u32* a, int tiles, u64 b, bool add) {
  Products& own = products[current];
  if (!own.ordered) fail("a product whose registers are not ordered after what wrote them");
  if (loose > 0) fail("a product that may not see what was copied");
  const u32* all = (const u32*)warp_gives(a, 16);
  own.waiting.push_back({c, a, {a[0], a[1], a[2], a[3]}, b, add, tiles, own.group, {}, operand_of(b, tiles)});
  Under& one = own.waiting.back();
  const int g = current % 32 / 4, t = current % 4;
  for (int half = 0; half < 2; half++) {
    float row[16];
    for (int k = 0; k < 16; k++) row[k] = bf16_value(all[4 * (4 * g + k % 8 / 2) + half + k / 8 * 2] >> (16 * (k % 2)) & 0xffff);
    for (int n = 0; n < tiles; n++)
      for (int i = 0; i < 2; i++) {
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += row[k] * bf16_value(one.b_was[k * 8 * tiles + n * 8 + 2 * t + i]);
        one.sums[n * 4 + half * 2 + i] = sum;
      }
  }
  // One lane looks after the operand for all.
  if (current % 32 != 0) one.b_was.clear();
}
void products_close() { products[current].group++; }
void products_wait(int left) {
  Products& own = products[current];
  own.ordered = false;
  for (; !own.waiting.empty() && own.waiting.front().group < own.group - left; own.waiting.pop_front()) {
    Under& one = own.waiting.front();
    if (memcmp(one.a, one.a_was, 16)) fail("registers that were written while they were multiplied");
    if (!one.b_was.empty() && one.b_was != operand_of(one.b, one.tiles)) fail("shared memory that was written while it was multiplied");
    for (int i = 0; i < one.tiles * 4; i++) one.c[i] = (one.add ? one.c[i] : 0) + one.sums[i];
  }
}

static void run_block(int threads) {
  fibers.resize(threads);
  warps.assign((threads + 31) / 32, Warp{});
  copies.assign(threads, Copies{});
  products.assign(threads, Products{});
  loose = 0;
  waited.assign(threads, false);
  block_live = threads;
  block_arrived = 0;
  for (int i = 0; i < threads; i++) {
    void** top = (void**)(stacks + (i + 1) * STACK - 64);
    *--top = nullptr;
    *--top = (void*)body;
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    u32 x = i % blockDim.x, y = i / blockDim.x % blockDim.y;
    fibers[i] = {top, RUNS, {x, y, i / (blockDim.x * blockDim.y)}};
    warps[i / 32].live++;
  }
  while (block_live > 0) {
    bool moved = false;
    for (int i = 0; i < threads; i++) {
      if (fibers[i].wait != RUNS) continue;
      current = i;
      threadIdx = fibers[i].index;
      switch_stack(&scheduler, fibers[i].at);
      moved = true;
      // A whole warp that has met goes on, and a whole block.
      Warp& warp = warps[i / 32];
      if (warp.live > 0 && warp.arrived == warp.live) {
        if (warp.live != (threads - i / 32 * 32 < 32 ? threads - i / 32 * 32 : 32)) fail("a collective of a warp whose lanes have partly ended");
        warp.arrived = 0;
        warp.turn++;
        warp.product.is_new = true;
        for (int j = i / 32 * 32; j < threads && j < i / 32 * 32 + 32; j++) if (fibers[j].wait == WARP) fibers[j].wait = RUNS;
      }
      if (block_live > 0 && block_arrived == block_live) {
        block_arrived = 0;
        for (int j = 0; j < threads; j++) if (fibers[j].wait == BLOCK) fibers[j].wait = RUNS;
      }
    }
    if (!moved) fail("threads wait for each other for ever");
  }
}

struct Launch { void (*kernel)(void**); void** arguments; Dim3 grid, block; size_t shared; };

static void launch(const Launch& l) {
  if (!stacks) stacks = (unsigned char*)aligned_alloc(4096, 1024 * STACK);
  kernel = l.kernel;
  arguments = l.arguments;
  gridDim = l.grid;
  blockDim = l.block;
  for (u32 z = 0; z < l.grid.z; z++)
    for (u32 y = 0; y < l.grid.y; y++)
      for (u32 x = 0; x < l.grid.x; x++) {
        blockIdx = {x, y, z};
        // What is not written must not be read: it is not a number.
        shared_memory.assign(l.shared + 16, 0xff);
        run_block(l.block.x * l.block.y * l.block.z);
      }
}
// What was recorded, and whether a stream records now.
struct Recorded { void (*kernel)(void**); Values values; Dim3 grid, block; size_t shared; };
typedef std::vector<Recorded> Graph;
static Graph* recording;
static void launch_recorded(const Recorded& r) {
  std::vector<void*> args;
  for (auto& value : r.values) args.push_back((void*)value.data());
  launch({r.kernel, args.data(), r.grid, r.block, r.shared});
}

// What was asked of the stream is done when somebody waits for it and not before, so that who does not wait is found out.
static std::deque<std::function<void()>> stream;
static u64 asked, done;
static int later(std::function<void()> what) {
  if (recording) return 900;
  stream.push_back(what);
  asked++;
  return 0;
}
static void run_until(u64 end) {
  for (; done < end; done++) { stream.front()(); stream.pop_front(); }
}
}  // namespace emulated

using namespace emulated;
typedef int Result;
static const Result OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_IN_A_RECORDING = 900;
static const size_t MEMORY = size_t(8) << 30;
static size_t taken;
static std::map<unsigned long long, size_t> sizes;

extern "C" {
Result cuInit(u32) { return OK; }
Result cuDriverGetVersion(int* v) { *v = 13000; return OK; }
Result cuDeviceGetCount(int* n) { *n = 1; return OK; }
Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return ordinal == 0 ? OK : INVALID; }
Result cuDeviceGetName(char* name, int len, int) { snprintf(name, len, "emulated"); return OK; }
// Compute capability 9.0, 227 KB of shared memory; everything else is 132.
Result cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 97 ? 227 << 10 : 132; return OK; }
Result cuDevicePrimaryCtxRetain(void** context, int) { static int one; *context = &one; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxSetCurrent(void*) { return OK; }
Result cuMemGetInfo_v2(size_t* left, size_t* all) { *left = MEMORY - taken; *all = MEMORY; return OK; }
Result cuMemAlloc_v2(unsigned long long* at, size_t size) {
  if (taken + size > MEMORY) return OUT_OF_MEMORY;
  void* memory = aligned_alloc(256, (size + 255) / 256 * 256);
  if (!memory) return OUT_OF_MEMORY;
  memset(memory, 0xff, size);
  taken += size;
  *at = (unsigned long long)memory;
  sizes[*at] = size;
  return OK;
}
Result cuMemFree_v2(unsigned long long at) { run_until(asked); taken -= sizes[at]; sizes.erase(at); free((void*)at); return OK; }
Result cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t size, void*) { return later([=] { memcpy((void*)to, from, size); }); }
Result cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t size, void*) { return later([=] { memcpy(to, (void*)from, size); }); }
Result cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t size, void*) { return later([=] { memmove((void*)to, (void*)from, size); }); }
Result cuMemsetD8Async(unsigned long long at, unsigned char value, size_t size, void*) { return later([=] { memset((void*)at, value, size); }); }
Result cuStreamCreate(void** stream, u32) { static int one; *stream = &one; return OK; }
Result cuStreamDestroy_v2(void*) { return OK; }
Result cuStreamSynchronize(void*) { if (recording) return NOT_IN_A_RECORDING; run_until(asked); return OK; }
Result cuEventCreate(void** event, u32) { *event = new u64(0); return OK; }
Result cuEventDestroy_v2(void* event) { delete (u64*)event; return OK; }
Result cuEventRecord(void* event, void*) { if (recording) return NOT_IN_A_RECORDING; *(u64*)event = asked; return OK; }
Result cuEventSynchronize(void* event) { run_until(*(u64*)event); return OK; }
Result cuMemAllocHost_v2(void** at, size_t size) { *at = aligned_alloc(4096, (size + 4095) / 4096 * 4096); return *at ? OK : OUT_OF_MEMORY; }
Result cuMemFreeHost(void* at) { free(at); return OK; }
Result cuModuleLoadData(void** module, const void*) { static int one; *module = &one; return OK; }
Result cuModuleUnload(void*) { return OK; }
Result cuModuleGetFunction(void** function, void*, const char* name) {
  auto found = kernels().find(name);
  if (found == kernels().end()) return NOT_FOUND;
  *function = &*found;
  return OK;
}
Result cuFuncGetAttribute(int* value, int, void*) { *value = 0; return OK; }
Result cuFuncSetAttribute(void*, int, int) { return OK; }
Result cuLaunchKernel(void* function, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, void*, void** args, void**) {
  auto& entry = *(std::pair<const std::string, Kernel>*)function;
  if (gx * gy * gz == 0 || bx * by * bz == 0 || bx * by * bz > 1024 || gy > 65535 || gz > 65535 || shared > (227 << 10)) return INVALID;
  Recorded recorded = {entry.second.call, entry.second.copy(args), {gx, gy, gz}, {bx, by, bz}, shared};
  if (recording) { recording->push_back(recorded); return OK; }
  return later([=] { launch_recorded(recorded); });
}
struct Attribute { int id; char pad[4]; int value; char rest[60]; };
struct LaunchConfig { u32 gx, gy, gz, bx, by, bz, shared; void* stream; Attribute* attributes; u32 count; };
Result cuLaunchKernelEx(const LaunchConfig* c, void* function, void** args, void** extra) {
  // The one that is known: that a kernel may start while the one before runs.
  if (c->count != 1 || c->attributes->id != 6 || c->attributes->value != 1) return INVALID;
  return cuLaunchKernel(function, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream, args, extra);
}
Result cuStreamBeginCapture_v2(void*, int) { if (recording) return INVALID; recording = new Graph; return OK; }
Result cuStreamEndCapture(void*, void** graph) { *graph = recording; recording = nullptr; return *graph ? OK : INVALID; }
Result cuGraphInstantiateWithFlags(void** ready, void* graph, unsigned long long) { *ready = new Graph(*(Graph*)graph); return OK; }
Result cuGraphDestroy(void* graph) { delete (Graph*)graph; return OK; }
Result cuGraphExecDestroy(void* graph) { delete (Graph*)graph; return OK; }
Result cuGraphLaunch(void* graph, void*) {
  return later([all = *(Graph*)graph] { for (const Recorded& r : all) launch_recorded(r); });
}
Result cuMemHostRegister_v2(void*, size_t, u32) { return OK; }
Result cuMemHostUnregister(void*) { return OK; }
Result cuGetErrorString(Result r, const char** text) { *text = r == OUT_OF_MEMORY ? "out of memory" : r == OK ? "no error" : "invalid"; return OK; }
Result cuGetErrorName(Result r, const char** text) { return cuGetErrorString(r, text); }

Result nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return OK; }
Result nvrtcCreateProgram(void** program, const char*, const char*, int, const char* const*, const char* const*) { static int one; *program = &one; return OK; }
Result nvrtcCompileProgram(void*, int, const char* const*) { return OK; }
Result nvrtcGetCUBINSize(void*, size_t* size) { *size = 8; return OK; }
Result nvrtcGetCUBIN(void*, char* out) { memcpy(out, "emulated", 8); return OK; }
Result nvrtcGetProgramLogSize(void*, size_t* size) { *size = 1; return OK; }
Result nvrtcGetProgramLog(void*, char* out) { *out = 0; return OK; }
Result nvrtcDestroyProgram(void**) { return OK; }
const char* nvrtcGetErrorString(Result) { return "emulated"; }
}
