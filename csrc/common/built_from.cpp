// In each library: a symbol whose name has the digest of all sources, and whose value is the version. The Python side
// looks for both in the file before it loads it, see resnet_cuda/_libraries.py.

#if defined(RESNET_CUDA_SOURCES_SYMBOL)

extern "C" {
__attribute__((visibility("default"), used)) extern const char RESNET_CUDA_SOURCES_SYMBOL[];
const char RESNET_CUDA_SOURCES_SYMBOL[] = "resnet_cuda version " RESNET_CUDA_VERSION;
}

#endif
