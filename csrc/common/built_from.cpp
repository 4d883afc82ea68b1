// In each library: a symbol whose name has the digest of all sources, and whose value is the version. The Python side
// looks for both in the file before it loads it, see resnet_cuda/_libraries.py.

#if defined(RESNET_CUDA_SOURCES_SYMBOL)

extern "C" {
// Without this declaration a constant would be known to its own file only.
__attribute__((visibility("default"))) extern const char RESNET_CUDA_SOURCES_SYMBOL[];
__attribute__((used)) const char RESNET_CUDA_SOURCES_SYMBOL[] = "resnet_cuda version " RESNET_CUDA_VERSION;
}

#endif
