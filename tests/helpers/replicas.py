"""What `nn.DataParallel` makes of a model for each GPU, on a CPU."""


def replica_of(model):
    """A replica, whose gradients flow to the parameters of the model."""
    modules = list(model.modules())
    copies = {module: module._replicate_for_data_parallel() for module in modules}
    for module, copy in copies.items():
        for name, part in module._modules.items():
            copy._modules[name] = None if part is None else copies[part]
        for name, parameter in module._parameters.items():
            copy._parameters[name] = None
            if parameter is not None:
                del copy._parameters[name]
                setattr(copy, name, parameter.view_as(parameter))
    return copies[model]
