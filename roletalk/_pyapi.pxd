# What the compiled coroutines use of the C API, beyond what Cython wraps.  Declarations only.

from cpython.object cimport PyObject


cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    object PyContext_CopyCurrent()
    bint PyCoro_CheckExact(object candidate)
    int PyObject_GenericSetAttr(object owner, object name, object value) except -1

    PyObject* PyDict_SetDefault(object mapping, object key, object value) except NULL    # borrowed
    int PyDict_SetItem(object mapping, object key, object value) except -1

    void PyErr_SetObject(object type, object value)
    void PyErr_SetNone(object type)
    void PyErr_SetString(object type, const char* text)

    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject** result) noexcept

    # The slots that a coroutine type of ours sets by hand.
    ctypedef PySendResult (*sendfunc)(PyObject*, PyObject*, PyObject**) noexcept
    ctypedef PyObject* (*iternextfunc)(PyObject*) noexcept
    ctypedef struct PyAsyncMethods:
        sendfunc am_send
    ctypedef PyObject* (*getattrofunc)(PyObject*, PyObject*) noexcept
    ctypedef int (*setattrofunc)(PyObject*, PyObject*, PyObject*) noexcept
    ctypedef struct PyTypeObject:
        PyAsyncMethods* tp_as_async
        iternextfunc tp_iternext
        getattrofunc tp_getattro
        setattrofunc tp_setattro
    PyObject* generic_getattr "PyObject_GenericGetAttr"(PyObject* instance, PyObject* name) noexcept
    int generic_setattr "PyObject_GenericSetAttr"(PyObject* instance, PyObject* name,
                                                  PyObject* value) noexcept

    PyObject* Py_True
    PyObject* Py_False
    void release "Py_DECREF"(PyObject* owned)
    void keep "Py_INCREF"(object kept)


cdef extern from *:
    """
    static inline int roletalk_raise_what_is_set(void) { return -1; }

    static inline int roletalk_is_awaitable(PyObject* value) {
        PyAsyncMethods* methods = Py_TYPE(value)->tp_as_async;
        return methods != NULL && methods->am_await != NULL;
    }

    static inline void roletalk_forget_item(PyObject* mapping, PyObject* key) {
        if (PyDict_DelItem(mapping, key) < 0) {
            PyErr_Clear();
        }
    }
    """
    # Gives an exception that C code has set to Cython, to be caught or to pass.
    int raise_what_is_set "roletalk_raise_what_is_set"() except -1
    bint is_awaitable "roletalk_is_awaitable"(object value)
    # Deletes a key that may be gone already.
    void forget_item "roletalk_forget_item"(object mapping, object key)
