/* Runs SavedModels with TensorFlow's C API: no Python, the loader that TF Serving uses.
 *
 *     run_saved_model PIXELS COUNT HEIGHT WIDTH FILES... -- SAVED_MODEL...
 *
 * PIXELS is a raw file of COUNT * HEIGHT * WIDTH * 3 bytes for `serving_images`, FILES are JPEG or PNG files for
 * `serving_default`. Both signatures run on all their images in one batch. A line for each image comes out:
 *
 *     SAVED_MODEL <tab> SIGNATURE <tab> CLASS <tab> LABEL <tab> PROBABILITY PROBABILITY ...
 *
 * The floats have nine digits, which tells them all apart. Anything unexpected ends it with status 1 and a line on stderr.
 */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "run_saved_model: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\n");
  va_end(arguments);
  exit(1);
}

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail("%s: %s", what, TF_Message(status));
}

/* ---- As much of protocol buffers as it takes to find a signature in a MetaGraphDef. ---- */

typedef struct {
  const unsigned char* at;
  size_t length;
} Bytes;

static unsigned long long take_varint(Bytes* rest) {
  unsigned long long value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest->length == 0) break;
    unsigned char byte = *rest->at++;
    rest->length--;
    value |= (unsigned long long)(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  fail("the MetaGraphDef is damaged");
  return 0;
}

/* Takes the next field; `payload` is set for those with a length (wire type 2). Returns its number, 0 at the end. */
static int take_field(Bytes* rest, Bytes* payload) {
  if (rest->length == 0) return 0;
  unsigned long long key = take_varint(rest), skip = 0;
  payload->at = NULL;
  payload->length = 0;
  switch (key & 7) {
    case 0: take_varint(rest); break;
    case 1: skip = 8; break;
    case 5: skip = 4; break;
    case 2:
      skip = take_varint(rest);
      payload->at = rest->at;
      payload->length = skip;
      break;
    default: fail("the MetaGraphDef has a field of wire type %d", (int)(key & 7));
  }
  if (skip > rest->length) fail("the MetaGraphDef is cut off");
  rest->at += skip;
  rest->length -= skip;
  return (int)(key >> 3);
}

/* The first field of this number. */
static int find_field(Bytes message, int number, Bytes* payload) {
  int found;
  while ((found = take_field(&message, payload)) != 0)
    if (found == number) return 1;
  return 0;
}

/* The value for a key of the map that is field `number`. */
static Bytes map_value(Bytes message, int number, const char* key) {
  Bytes entry, name, value;
  int found;
  while ((found = take_field(&message, &entry)) != 0) {
    if (found != number || !find_field(entry, 1, &name)) continue;
    if (name.length == strlen(key) && memcmp(name.at, key, name.length) == 0 && find_field(entry, 2, &value)) return value;
  }
  fail("there is no %s", key);
  return message;
}

enum { SIGNATURE_DEF = 5, INPUTS = 1, OUTPUTS = 2, TENSOR_NAME = 1 };

/* The graph's tensor behind a name of a signature: "operation:index". */
static TF_Output tensor_of(TF_Graph* graph, Bytes signature, int side, const char* key) {
  Bytes name;
  char text[1024];
  if (!find_field(map_value(signature, side, key), TENSOR_NAME, &name) || name.length >= sizeof text)
    fail("%s names no tensor", key);
  memcpy(text, name.at, name.length);
  text[name.length] = 0;
  TF_Output output = {NULL, 0};
  char* colon = strrchr(text, ':');
  if (colon) {
    output.index = atoi(colon + 1);
    *colon = 0;
  }
  output.oper = TF_GraphOperationByName(graph, text);
  if (!output.oper) fail("%s: the graph has no operation %s", key, text);
  return output;
}

/* ---- Images in. ---- */

static char* read_file(const char* path, size_t* length) {
  FILE* file = fopen(path, "rb");
  if (!file) fail("%s cannot be opened", path);
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char* content = malloc(size > 0 ? size : 1);
  if (size < 0 || !content || fread(content, 1, size, file) != (size_t)size) fail("%s cannot be read", path);
  fclose(file);
  *length = size;
  return content;
}

static TF_Tensor* pixel_tensor(const char* path, const int64_t dimensions[4]) {
  size_t length, expected = dimensions[0] * dimensions[1] * dimensions[2] * dimensions[3];
  char* content = read_file(path, &length);
  if (length != expected) fail("%s has %zu bytes, expected %zu", path, length, expected);
  TF_Tensor* tensor = TF_AllocateTensor(TF_UINT8, dimensions, 4, length);
  memcpy(TF_TensorData(tensor), content, length);
  free(content);
  return tensor;
}

static TF_Tensor* file_tensor(char** paths, int64_t count) {
  TF_Tensor* tensor = TF_AllocateTensor(TF_STRING, &count, 1, count * sizeof(TF_TString));
  TF_TString* strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) {
    size_t length;
    char* content = read_file(paths[i], &length);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], content, length);
    free(content);
  }
  return tensor;
}

/* ---- One signature of one model. ---- */

static void run(TF_Session* session, TF_Graph* graph, Bytes meta_graph, const char* path, const char* signature_name,
                const char* input_name, TF_Tensor* input) {
  Bytes signature = map_value(meta_graph, SIGNATURE_DEF, signature_name);
  TF_Output feed = tensor_of(graph, signature, INPUTS, input_name);
  TF_Output fetches[3] = {tensor_of(graph, signature, OUTPUTS, "probabilities"),
                          tensor_of(graph, signature, OUTPUTS, "classes"),
                          tensor_of(graph, signature, OUTPUTS, "labels")};
  TF_Tensor* outputs[3] = {NULL, NULL, NULL};
  TF_Status* status = TF_NewStatus();
  TF_SessionRun(session, NULL, &feed, &input, 1, fetches, outputs, 3, NULL, 0, NULL, status);
  check(status, signature_name);
  TF_DeleteStatus(status);
  int64_t count = TF_Dim(input, 0);
  if (TF_TensorType(outputs[0]) != TF_FLOAT || TF_NumDims(outputs[0]) != 2 || TF_Dim(outputs[0], 0) != count)
    fail("probabilities are not float32 [%lld, classes]", (long long)count);
  if (TF_TensorType(outputs[1]) != TF_INT64 || TF_NumDims(outputs[1]) != 1 || TF_Dim(outputs[1], 0) != count)
    fail("classes are not int64 [%lld]", (long long)count);
  if (TF_TensorType(outputs[2]) != TF_STRING || TF_NumDims(outputs[2]) != 1 || TF_Dim(outputs[2], 0) != count)
    fail("labels are not string [%lld]", (long long)count);
  int64_t classes = TF_Dim(outputs[0], 1);
  const float* probabilities = TF_TensorData(outputs[0]);
  const int64_t* winners = TF_TensorData(outputs[1]);
  const TF_TString* labels = TF_TensorData(outputs[2]);
  for (int64_t i = 0; i < count; i++) {
    printf("%s\t%s\t%lld\t%.*s\t", path, signature_name, (long long)winners[i], (int)TF_StringGetSize(&labels[i]),
           TF_StringGetDataPointer(&labels[i]));
    for (int64_t j = 0; j < classes; j++) printf("%s%.9g", j ? " " : "", probabilities[i * classes + j]);
    printf("\n");
  }
  for (int i = 0; i < 3; i++) TF_DeleteTensor(outputs[i]);
}

int main(int count, char** words) {
  int separator = 5;
  while (separator < count && strcmp(words[separator], "--") != 0) separator++;
  if (separator < 6 || separator + 1 >= count)
    fail("usage: run_saved_model PIXELS COUNT HEIGHT WIDTH FILES... -- SAVED_MODEL...");
  int64_t dimensions[4] = {atoll(words[2]), atoll(words[3]), atoll(words[4]), 3};
  TF_Tensor* images = pixel_tensor(words[1], dimensions);
  TF_Tensor* files = file_tensor(words + 5, separator - 5);

  for (int i = separator + 1; i < count; i++) {
    TF_Status* status = TF_NewStatus();
    TF_SessionOptions* options = TF_NewSessionOptions();
    TF_Graph* graph = TF_NewGraph();
    TF_Buffer* meta_graph = TF_NewBuffer();
    const char* tags[] = {"serve"};
    TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, words[i], tags, 1, graph, meta_graph, status);
    check(status, words[i]);
    Bytes bytes = {meta_graph->data, meta_graph->length};
    run(session, graph, bytes, words[i], "serving_default", "image_bytes", files);
    run(session, graph, bytes, words[i], "serving_images", "images", images);
    TF_CloseSession(session, status);
    check(status, words[i]);
    TF_DeleteSession(session, status);
    TF_DeleteGraph(graph);
    TF_DeleteBuffer(meta_graph);
    TF_DeleteSessionOptions(options);
    TF_DeleteStatus(status);
  }
  TF_DeleteTensor(images);
  for (int64_t i = 0; i < TF_Dim(files, 0); i++) TF_StringDealloc((TF_TString*)TF_TensorData(files) + i);
  TF_DeleteTensor(files);
  return 0;
}
